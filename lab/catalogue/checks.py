"""The checks of one file of a suite, found in its syntax tree; the file is never run."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.catalogue.model import FAMILIES, LEVELS, Check, Feature, did_you_mean
from lab.contracts import Capability


def read_checks(path: Path, relative: str, features: Mapping[str, Feature], problems: list[str]) -> list[Check]:
    """The checks of a file whose ids begin with `relative`; what is wrong is added to `problems`."""
    return _File(path, relative, features, problems).read()


class _File:
    """One file of checks, read as a syntax tree."""

    def __init__(self, path: Path, relative: str, features: Mapping[str, Feature], problems: list[str]) -> None:
        self._path = path
        self._relative = relative
        self._features = features
        self._problems = problems

    def read(self) -> list[Check]:
        checks: list[Check] = []
        try:
            tree = ast.parse(self._path.read_bytes(), filename=str(self._path))
        except SyntaxError as reason:
            self._problems.append(f"{self._path}:{reason.lineno or 1}: {reason.msg}")
            return []
        except (OSError, ValueError) as reason:
            self._problems.append(f"{self._path}: cannot be read: {reason}")
            return []
        lines: dict[str, int] = {}
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
                self._say(node, f"{node.name}: a check is a function, not a class")
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or not node.name.startswith("test"):
                continue
            if node.name in lines:
                self._say(node, f"{node.name}: duplicate; the first is in line {lines[node.name]}")
                continue
            lines[node.name] = node.lineno
            check = self._check(node)
            if check is not None:
                checks.append(check)
        return checks

    def _say(self, node: ast.AST, what: str) -> None:
        self._problems.append(f"{self._path}:{getattr(node, 'lineno', 1)}: {what}")

    def _check(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> Check | None:
        if isinstance(node, ast.AsyncFunctionDef):
            self._say(node, f"{node.name}: a check is not async")
            return None
        calls = [each for each in node.decorator_list if _is_check(each)]
        if not calls:
            self._say(node, f"{node.name}: a test without @check; every check names its feature")
            return None
        for other in node.decorator_list:
            if other is not calls[0]:
                # Parametrised ids cannot be known without running the file.
                self._say(other, f"{node.name}: a check has one decorator, @check")
        call = calls[0]
        if not isinstance(call, ast.Call):
            self._say(call, f"{node.name}: @check needs the feature's id")
            return None
        given = self._arguments(node.name, call)
        if given is None:
            return None
        paragraph = (ast.get_docstring(node) or "").partition("\n\n")[0]
        return Check(id=f"{self._relative}::{node.name}", meaning=" ".join(paragraph.split()), **given)

    def _arguments(self, name: str, call: ast.Call) -> dict[str, Any] | None:
        before = len(self._problems)
        words: dict[str, ast.expr] = {}
        if len(call.args) == 1:
            words["feature"] = call.args[0]
        elif len(call.args) > 1:
            self._say(call, f"{name}: @check takes the feature's id, everything else by name")
        for word in call.keywords:
            if word.arg is None or word.arg in words or word.arg not in _ARGUMENTS:
                shown = word.arg or "**"
                self._say(word, f"{name}: @check has no {shown!r}{did_you_mean(shown, tuple(_ARGUMENTS))}")
            else:
                words[word.arg] = word.value
        if "feature" not in words and len(self._problems) == before:
            self._say(call, f"{name}: @check needs the feature's id")
        given: dict[str, Any] = {}
        for key, value in words.items():
            try:
                given[key] = _ARGUMENTS[key](value)
            except ValueError as reason:
                self._say(value, f"{name}: {key}: {reason}")
        if len(self._problems) == before:
            self._judge_feature(name, call, given)
        return given if len(self._problems) == before else None

    def _judge_feature(self, name: str, call: ast.Call, given: dict[str, Any]) -> None:
        feature = self._features.get(given["feature"])
        if feature is None:
            known = tuple(self._features)
            self._say(call, f"{name}: unknown feature {given['feature']!r}{did_you_mean(given['feature'], known)}")
            return
        for family in given.get("families", ("linux",)):
            if family not in feature.families:
                self._say(call, f"{name}: {feature.id} is not a feature of {family} guests")


def _is_check(node: ast.expr) -> bool:
    function = node.func if isinstance(node, ast.Call) else node
    return (isinstance(function, ast.Name) and function.id == "check") or (
        isinstance(function, ast.Attribute) and function.attr == "check"
    )


def _literal(kind: type | tuple[type, ...], expected: str) -> Callable[[ast.expr], Any]:
    def read(node: ast.expr) -> Any:
        value = node.value if isinstance(node, ast.Constant) else None
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"expected {expected} written out, because checks are read without running them")
        return value

    return read


def _level(node: ast.expr) -> str:
    level: str = _literal(str, "a level")(node)
    if level not in LEVELS:
        raise ValueError(f"unknown level {level!r}{did_you_mean(level, LEVELS)}; known: {', '.join(LEVELS)}")
    return level


def _timeout(node: ast.expr) -> float:
    seconds = float(_literal((int, float), "seconds")(node))
    if not 0 < seconds <= 3600:
        raise ValueError(f"{seconds:g} s is not between 0 and an hour")
    return seconds


def _machines(node: ast.expr) -> int:
    count: int = _literal(int, "1 or 2")(node)
    if count not in (1, 2):
        raise ValueError(f"a check has one machine or two, not {count}")
    return count


def _elements(node: ast.expr, expected: str) -> Sequence[ast.expr]:
    if not isinstance(node, ast.Tuple | ast.List | ast.Set):
        raise ValueError(f"expected {expected} written out, because checks are read without running them")
    return node.elts


def _needs(node: ast.expr) -> frozenset[Capability]:
    names = tuple(Capability.__members__)
    found = []
    for element in _elements(node, "a tuple of capabilities"):
        if not (isinstance(element, ast.Attribute) and getattr(element.value, "id", "") == "Capability"):
            raise ValueError("expected members of Capability written out, as Capability.SNAPSHOTS")
        if element.attr not in names:
            raise ValueError(
                f"unknown capability {element.attr!r}{did_you_mean(element.attr, names)}; known: {', '.join(names)}"
            )
        found.append(Capability[element.attr])
    return frozenset(found)


def _families(node: ast.expr) -> tuple[str, ...]:
    families = tuple(_literal(str, "a family")(element) for element in _elements(node, "a tuple of families"))
    for family in families:
        if family not in FAMILIES:
            raise ValueError(f"unknown family {family!r}{did_you_mean(family, FAMILIES)}; known: {', '.join(FAMILIES)}")
    if not families:
        raise ValueError("a check without a family is never run")
    return families


_ARGUMENTS: Mapping[str, Callable[[ast.expr], Any]] = {
    "feature": _literal(str, "the feature's id"),
    "level": _level,
    "defect": _literal(bool, "True or False"),
    "families": _families,
    "cold": _literal(bool, "True or False"),
    "needs": _needs,
    "machines": _machines,
    "spoils": _literal(bool, "True or False"),
    "timeout_s": _timeout,
}
