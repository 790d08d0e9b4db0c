"""The catalogue of errors has no dead entry, and each says what it is for."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path

from lab import errors

HOME = Path("lab/errors.py")


def _classes() -> dict[str, type[errors.LabError]]:
    return {
        name: value
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, errors.LabError)
    }


def test_every_error_is_used(lab_modules: Mapping[Path, ast.Module]) -> None:
    used = {name for path, tree in lab_modules.items() if path != HOME for name in _names(tree)}

    assert sorted(set(_classes()) - used) == []


def test_every_error_says_what_it_is_for() -> None:
    assert [name for name, error in _classes().items() if not error.__dict__.get("__doc__")] == []


def test_no_public_module_has_an_error_of_its_own(lab_modules: Mapping[Path, ast.Module]) -> None:
    elsewhere = [
        f"{path}: {node.name}"
        for path, tree in lab_modules.items()
        if path != HOME and not path.stem.startswith("_")
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and any(ast.unparse(parent).endswith("Error") for parent in node.bases)
    ]

    assert elsewhere == []


def test_the_labs_fault_never_ends_like_the_products() -> None:
    mixed = [
        name
        for name, error in _classes().items()
        if error.exit_code is errors.ExitCode.PRODUCT_FAILED and error.blame is errors.Blame.CONFIGURATION
    ]

    assert mixed == []


def _names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name):
                yield name
            case ast.Attribute(attr=name):
                yield name
