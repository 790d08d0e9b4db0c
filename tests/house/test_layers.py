"""Dependencies point down, and no part of the package is outside that law."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

DRIVERS = Path("lab/hypervisors")


def test_the_layers_hold(root: Path) -> None:
    linter = Path(sys.executable).with_name("lint-imports")

    finished = subprocess.run([linter, "--no-cache"], cwd=root, capture_output=True, text=True, check=False)

    assert finished.returncode == 0, finished.stdout


def test_every_part_of_the_package_has_its_layer(root: Path) -> None:
    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = {name.strip() for layer in contracts[0]["layers"] for name in layer.split("|")}
    parts = {f"lab.{path.stem}" for path in (root / "lab").iterdir() if path.suffix == ".py" or path.is_dir()}

    assert parts - {"lab.__init__", "lab.__pycache__"} == layers


def test_no_driver_imports_another(lab_modules: Mapping[Path, ast.Module]) -> None:
    crossing = [
        f"{path}: {name}"
        for path, tree in lab_modules.items()
        if path.parent == DRIVERS and path.stem != "__init__"
        for name in _imported(tree)
        if name.startswith("lab.hypervisors") and not _is_of_same_driver(path, name)
    ]

    assert crossing == []


def test_suites_import_nothing_of_the_lab_but_its_public_module(modules: Mapping[Path, ast.Module]) -> None:
    reaching = [
        f"{path}: {name}"
        for path, tree in modules.items()
        if path.parts[0] == "suites"
        for name in _imported(tree)
        if name.split(".")[0] == "lab" and name != "lab.suite" and not name.startswith("lab.suite.")
    ]

    assert reaching == []


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


_BELOW_ALL_DRIVERS = (
    "lab.hypervisors._dump_file",
    "lab.hypervisors._guest_agent",
    "lab.hypervisors._machine_directory",
    "lab.hypervisors._picture",
    "lab.hypervisors._reached_host",
    "lab.hypervisors._rfb",
    "lab.hypervisors._sysrq",
)


def _is_of_same_driver(path: Path, name: str) -> bool:
    below = {one: one.rpartition(".")[2] for one in _BELOW_ALL_DRIVERS}
    if name in below or name.rpartition(".")[0] in below or path.stem in below.values():
        return True
    driver = path.stem.strip("_").split("_")[0]
    parts = name.removeprefix("lab.hypervisors").lstrip(".").split(".")
    return parts[0].strip("_").split("_")[0] == driver
