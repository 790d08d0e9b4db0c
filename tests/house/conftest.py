"""What the house checks look at: the files of the repository, parsed once."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    """The top folder of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def files() -> tuple[Path, ...]:
    """The files of the repository, relative to its top: those that git tracks or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    return tuple(sorted(Path(name) for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()))


@pytest.fixture(scope="session")
def modules(files: tuple[Path, ...]) -> Mapping[Path, ast.Module]:
    """Every Python file of the repository with its syntax tree."""
    return {path: ast.parse((ROOT / path).read_bytes(), str(path)) for path in files if path.suffix == ".py"}


@pytest.fixture(scope="session")
def lab_modules(modules: Mapping[Path, ast.Module]) -> Mapping[Path, ast.Module]:
    """The modules of the package `lab`."""
    return {path: tree for path, tree in modules.items() if path.parts[0] == "lab"}
