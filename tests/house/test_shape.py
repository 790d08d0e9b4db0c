"""Modules stay small, have one subject and say it; names say what a thing does."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

LONGEST_MODULE = 400
BANNED_NAMES = {"utils", "util", "common", "helpers", "helper", "manager", "base", "misc", "core", "tools"}


def test_no_module_is_longer_than_400_lines(root: Path, modules: Mapping[Path, ast.Module]) -> None:
    lengths = {path: len((root / path).read_text().splitlines()) for path in modules}

    assert {str(path): length for path, length in lengths.items() if length > LONGEST_MODULE} == {}


def test_the_linter_holds_functions_to_40_statements_and_5_parameters(root: Path) -> None:
    lint = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]

    assert {"PLR0913", "PLR0915"} <= set(lint["select"])
    assert lint["pylint"] == {"max-args": 5, "max-statements": 40}


def test_whoever_silences_the_linter_names_the_rule(root: Path, modules: Mapping[Path, ast.Module]) -> None:
    blanket = [place for place, line in _silencing_lines(root, modules) if not re.search(r"noqa: [A-Z]+[0-9]+", line)]

    assert blanket == []


def test_whoever_passes_the_limits_on_functions_says_why(root: Path, lab_modules: Mapping[Path, ast.Module]) -> None:
    lines = [(place, line) for place, line in _silencing_lines(root, lab_modules) if "PLR09" in line]

    assert [place for place, line in lines if not re.search(r"noqa: [A-Z0-9, ]+ - \w+ \w+", line)] == []


def _silencing_lines(root: Path, modules: Iterable[Path]) -> Iterator[tuple[str, str]]:
    for path in modules:
        for number, line in enumerate((root / path).read_text().splitlines(), start=1):
            if re.search(r"#\s+noq[a]", line):
                yield f"{path}:{number}", line


def test_no_module_has_a_name_that_says_nothing(lab_modules: Mapping[Path, ast.Module]) -> None:
    parts = {part.strip("_") for path in lab_modules for part in (*path.parent.parts, path.stem)}

    assert parts & BANNED_NAMES == set()


def test_every_module_opens_with_a_sentence(modules: Mapping[Path, ast.Module]) -> None:
    silent = []
    for path, tree in modules.items():
        first_line = (ast.get_docstring(tree) or "").partition("\n")[0]
        if tree.body and len(first_line.split()) < 3:
            silent.append(str(path))

    assert silent == []


def test_every_public_function_of_a_public_module_is_documented(lab_modules: Mapping[Path, ast.Module]) -> None:
    public = {path: tree for path, tree in lab_modules.items() if not path.stem.startswith("_")}
    silent = [
        f"{path}:{node.lineno}: {node.name}"
        for path, tree in public.items()
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith(("_", "pytest_"))
        and ast.get_docstring(node) is None
    ]

    assert silent == []
