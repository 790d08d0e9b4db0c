"""The rules of the suites: what a check imports, how it is described, and that it cannot pass without having looked."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from sys import stdlib_module_names

import pytest

from lab import catalogue
from lab.catalogue import Check
from lab.checking import devices, key_values, processors, tpm, wire, witness
from lab.contracts import Capability

SUITES = Path(__file__).parents[2] / "suites"
FILES = sorted(SUITES.glob("*/*/test_*.py"))
CHECKS = catalogue.load(SUITES).checks
SHARED = (devices, key_values, processors, tpm, wire, witness)
NO_WAY_OUT = ("not_applicable", "unsupported", "blocked")


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def function(check: Check) -> ast.FunctionDef:
    file, _, name = check.id.partition("::")
    return next(node for node in tree(SUITES / file).body if isinstance(node, ast.FunctionDef) and node.name == name)


def shared() -> dict[str, ast.FunctionDef]:
    """What several checks call: functions as `devices.assert_...`, methods as `.assert_...` of whatever class."""
    found = {}
    for module in SHARED:
        for node in tree(Path(module.__file__ or "")).body:
            if isinstance(node, ast.FunctionDef):
                private = node.name.startswith("_")
                found[node.name if private else f"{module.__name__.rpartition('.')[2]}.{node.name}"] = node
            if isinstance(node, ast.ClassDef):
                found |= {f".{each.name}": each for each in node.body if isinstance(each, ast.FunctionDef)}
    return found


def reachable(check: Check) -> Iterator[ast.AST]:
    """The nodes of a check, of the functions in its file that it calls by name, and of those that checks share."""
    known = dict(shared())
    for node in tree(SUITES / check.id.partition("::")[0]).body:
        if isinstance(node, ast.FunctionDef):
            known[node.name] = node
    todo, seen = [function(check)], set()
    while todo:
        for node in ast.walk(todo.pop()):
            yield node
            for called in _names(node):
                if called in known and called not in seen:
                    seen.add(called)
                    todo.append(known[called])


def _names(node: ast.AST) -> tuple[str, ...]:
    if not isinstance(node, ast.Call):
        return ()
    whole = ast.unparse(node.func)
    return (whole, f".{node.func.attr}") if isinstance(node.func, ast.Attribute) else (whole,)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SUITES).as_posix())
def test_a_check_imports_the_public_surface_and_the_standard_library_alone(path: Path) -> None:
    names = [alias.name for node in ast.walk(tree(path)) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in ast.walk(tree(path)) if isinstance(node, ast.ImportFrom)]
    foreign = [name for name in names if name != "lab.suite" and name.partition(".")[0] not in stdlib_module_names]
    assert foreign == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SUITES).as_posix())
def test_a_file_says_which_feature_it_is_about(path: Path) -> None:
    said = ast.get_docstring(tree(path)) or ""
    features = {check.feature for check in CHECKS if check.id.startswith(path.relative_to(SUITES).as_posix())}
    assert len(features) == 1
    assert said.startswith(f"{features.pop()}: ")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_a_check_says_what_it_catches(check: Check) -> None:
    assert check.meaning.startswith("Catches ")
    assert check.meaning.endswith(".")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_a_check_lies_in_the_folder_of_its_area(check: Check) -> None:
    assert check.id.split("/")[1] == check.feature.partition(".")[0]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_a_check_can_fail_and_says_what_it_saw(check: Check) -> None:
    asserts = [node for node in reachable(check) if isinstance(node, ast.Assert)]
    waits = [node for node in reachable(check) if isinstance(node, ast.Attribute) and node.attr == "until"]
    assert asserts or waits, "nothing in it can fail"
    without = [
        ast.unparse(node.test) for node in asserts if node.msg is None and not isinstance(node.test, ast.Compare)
    ]
    assert without == [], "an assertion without a message that is no plain comparison"


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_a_check_catches_no_exception(check: Check) -> None:
    caught = [node for node in reachable(check) if isinstance(node, ast.ExceptHandler)]
    assert caught == [], "whose fault an exception is, is decided in one place"


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_a_check_reaches_the_machine_by_its_fixtures(check: Check) -> None:
    known = {"guest", "machine", "peer", "hypervisor", "reconnect", "inspect", "measured", "evidence"}
    assert {argument.arg for argument in function(check).args.args} <= known


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_a_check_asks_for_a_peer_exactly_when_memory_is_kept_for_it(check: Check) -> None:
    assert ("peer" in {argument.arg for argument in function(check).args.args}) == (check.machines == 2)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_a_check_names_the_capability_that_it_asks_for(check: Check) -> None:
    asked = [node for node in reachable(check) if isinstance(node, ast.Call) and ast.unparse(node.func) == "who_can"]
    assert bool(asked) == bool(check.needs & set(Capability))


@pytest.mark.parametrize("check", [check for check in CHECKS if check.level == "smoke"], ids=lambda check: check.id)
def test_a_smoke_check_is_quick_and_boots_nothing(check: Check) -> None:
    assert not check.cold
    assert not check.needs
    assert check.timeout_s <= catalogue.model.TIMEOUT_S


def test_a_reason_for_not_judging_is_always_given() -> None:
    for path in FILES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in NO_WAY_OUT:
                assert len(node.args) == 1, f"{path}:{node.lineno}"
                assert not (isinstance(node.args[0], ast.Constant) and not node.args[0].value), f"{path}:{node.lineno}"
