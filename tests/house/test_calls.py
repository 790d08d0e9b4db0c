"""What no module may do: sleep, print, exit, go through a shell, promise without keeping."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

Modules = Mapping[Path, ast.Module]
Test = Callable[[ast.AST], bool]


def _is_call_of(*names: str) -> Test:
    return lambda node: isinstance(node, ast.Call) and ast.unparse(node.func) in names


def _names_not_implemented(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id in ("NotImplementedError", "NotImplemented")


def _asks_for_a_shell(node: ast.AST) -> bool:
    return isinstance(node, ast.keyword) and node.arg == "shell"


def _swallows(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in ("Exception", "BaseException"))
        and all(isinstance(line, ast.Pass | ast.Continue) for line in node.body)
    )


def _imports_sleep(node: ast.AST) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "time" and any(n.name == "sleep" for n in node.names)


@pytest.mark.parametrize(
    ("is_forbidden", "allowed_in"),
    [
        pytest.param(_is_call_of("time.sleep", "sleep"), {"lab/waiting.py"}, id="sleep"),
        pytest.param(_imports_sleep, set(), id="import sleep"),
        pytest.param(
            _is_call_of("sys.exit", "exit", "quit"), {"lab/cli.py", "lab/hypervisors/_libvirt_parent.py"}, id="exit"
        ),
        pytest.param(_is_call_of("os.system", "os.popen", "eval", "exec"), set(), id="shell or eval"),
        pytest.param(_asks_for_a_shell, set(), id="shell=True"),
        pytest.param(_names_not_implemented, set(), id="NotImplementedError"),
        pytest.param(_swallows, set(), id="swallowed exception"),
    ],
)
def test_the_lab_never_uses(is_forbidden: Test, allowed_in: set[str], lab_modules: Modules) -> None:
    assert sorted(set(_places(is_forbidden, lab_modules)) - allowed_in) == []


def test_tests_wait_for_nothing_by_sleeping(modules: Modules) -> None:
    others = {path: tree for path, tree in modules.items() if path.parts[0] in ("tests", "suites")}

    assert sorted(set(_places(_is_call_of("time.sleep", "sleep"), others))) == []


def _places(is_forbidden: Test, modules: Modules) -> Iterator[str]:
    for path, tree in modules.items():
        if any(is_forbidden(node) for node in ast.walk(tree)):
            yield str(path)
