"""Reads a YAML file into plain values and remembers on which line each of them stands.

The values follow YAML 1.2 (https://yaml.org/spec/1.2.2/): `no` is a word. Dates stay text. A hostile file ends as
problems: bounded in size, depth and in what its aliases unfold to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from lab.inventory.problems import Problems

LARGEST_FILE = 4 << 20
DEEPEST = 40
MOST_VALUES = 200_000

Place = tuple[str | int, ...]

_CORE = "tag:yaml.org,2002:"
_PLAIN_TAGS = frozenset(_CORE + kind for kind in ("str", "null", "bool", "int", "float", "timestamp", "map", "seq"))
_LONGEST_NUMBER = 40
_NOT_TEXT = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True)
class Spot:
    """Where something stands, as a problem shows it."""

    path: Path
    line: int
    label: str


@dataclass
class Document:
    """A file's values with their lines; `tags` holds the places of values with a tag of their own, such as `!vault`."""

    path: Path
    value: Any = None
    lines: dict[Place, int] = field(default_factory=dict)
    tags: dict[Place, str] = field(default_factory=dict)

    def line(self, place: Place) -> int:
        """The line of a place, or of the nearest thing around it; 0 when the file has none."""
        for end in range(len(place), -1, -1):
            found = self.lines.get(place[:end])
            if found is not None:
                return found
        return 0

    def spot(self, place: Place) -> Spot:
        """A place as a problem shows it."""
        return Spot(self.path, self.line(place), label(place))

    def at(self, place: Place) -> Any:
        """The value at a place, or `None`."""
        value = self.value
        for step in place:
            if isinstance(value, dict):
                value = value.get(step)
            elif isinstance(value, list) and isinstance(step, int) and step < len(value):
                value = value[step]
            else:
                return None
        return value


def label(place: Place) -> str:
    """A place as people write it: `include[0].cell`."""
    text = ""
    for step in place:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def read_bytes(path: Path, problems: Problems) -> bytes | None:
    """A file's content, or `None` and a problem."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        problems.add(path, 0, "", "no such file")
        return None
    except OSError as reason:
        problems.add(path, 0, "", f"cannot be read: {reason.strerror}")
        return None
    if len(content) > LARGEST_FILE:
        problems.add(path, 0, "", f"larger than {LARGEST_FILE >> 20} MiB")
        return None
    return content


def read(path: Path, problems: Problems) -> Document | None:
    """The document in a file, or `None` and at least one problem."""
    content = read_bytes(path, problems)
    return None if content is None else parse(path, content, problems)


def parse(path: Path, content: bytes, problems: Problems) -> Document | None:
    """The document in these bytes of a file, or `None` and at least one problem."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as reason:
        problems.add(path, content.count(b"\n", 0, reason.start) + 1, "", "not UTF-8 text")
        return None
    before = len(problems)
    document = Document(path, lines={(): 1})
    root = _compose(path, text, problems)
    if root is not None:  # an empty file is a document that holds nothing
        document.value = _Reader(document, problems).value(root, ())
    return document if len(problems) == before else None


def _compose(path: Path, text: str, problems: Problems) -> Node | None:
    try:
        root: Node | None = YAML(typ="safe", pure=True).compose(text)
        return root
    except YAMLError as reason:
        mark = getattr(reason, "problem_mark", None) or getattr(reason, "context_mark", None)
        line = mark.line + 1 if mark is not None else _line_of_character(text, reason)
        what = getattr(reason, "problem", None) or getattr(reason, "reason", None) or "cannot be understood"
        problems.add(path, line, "", f"not valid YAML: {what}")
    except RecursionError:
        problems.add(path, 0, "", f"nested deeper than {DEEPEST} levels")
    return None


def _line_of_character(text: str, reason: YAMLError) -> int:
    position = getattr(reason, "position", None)  # a ReaderError has no mark
    return text.count("\n", 0, position) + 1 if isinstance(position, int) else 0


class _Reader:
    """Turns one tree of nodes into values."""

    def __init__(self, document: Document, problems: Problems) -> None:
        self._document = document
        self._problems = problems
        self._open: list[Node] = []
        self._values = 0

    def value(self, node: Node, place: Place) -> Any:
        self._values += 1
        if self._values > MOST_VALUES:
            if self._values == MOST_VALUES + 1:
                self._complain(place, f"the file unfolds to more than {MOST_VALUES} values")
            return None
        if any(node is outer for outer in self._open):
            self._complain(place, "the value contains itself")
            return None
        if len(place) > DEEPEST:
            self._complain(place, f"nested deeper than {DEEPEST} levels")
            return None
        if node.tag not in _PLAIN_TAGS:
            self._document.tags[place] = str(node.tag)
        if isinstance(node, ScalarNode):
            return self._scalar(node, place)
        self._open.append(node)
        try:
            if isinstance(node, MappingNode):
                return self._mapping(node, place)
            if isinstance(node, SequenceNode):
                return self._sequence(node, place)
            return None
        finally:
            self._open.pop()

    def _sequence(self, node: SequenceNode, place: Place) -> list[Any]:
        values = []
        for index, item in enumerate(node.value):
            here = (*place, index)
            self._document.lines[here] = item.start_mark.line + 1
            values.append(self.value(item, here))
        return values

    def _mapping(self, node: MappingNode, place: Place) -> dict[str, Any]:
        values: dict[str, Any] = {}
        seen: dict[str, int] = {}
        for key, line, child in self._own_entries(node, place):
            if key in seen:
                self._problems.add(
                    self._document.path, line, label((*place, key)), f"written twice, first on line {seen[key]}"
                )
                continue
            seen[key] = line
            self._document.lines[(*place, key)] = line
            values[key] = self.value(child, (*place, key))
        for merged in self._merged(node):
            for key, line, child in self._own_entries(merged, place):
                if key not in values:
                    self._document.lines[(*place, key)] = line
                    values[key] = self.value(child, (*place, key))
        return values

    def _own_entries(self, node: MappingNode, place: Place) -> Iterator[tuple[str, int, Node]]:
        for key, child in node.value:
            line = key.start_mark.line + 1
            if key.tag == _CORE + "merge":
                continue
            if not isinstance(key, ScalarNode) or _NOT_TEXT.search(key.value):
                self._problems.add(self._document.path, line, label(place), "a key must be plain text")
                continue
            yield key.value, line, child

    @staticmethod
    def _merged(node: MappingNode) -> Iterator[MappingNode]:
        """The mappings that `<<` takes over (https://yaml.org/type/merge.html), nearest first."""
        waiting, seen = [node], {id(node)}
        while waiting:
            taker = waiting.pop(0)
            for key, child in taker.value:
                if key.tag != _CORE + "merge":
                    continue
                for source in child.value if isinstance(child, SequenceNode) else (child,):
                    if isinstance(source, MappingNode) and id(source) not in seen:
                        seen.add(id(source))
                        waiting.append(source)
                        yield source

    def _scalar(self, node: ScalarNode, place: Place) -> Any:
        text = node.value
        if _NOT_TEXT.search(text):
            self._complain(place, "not text: it holds a NUL or half of a character")
            return None
        kind = str(node.tag).removeprefix(_CORE)
        try:
            match kind:
                case "null":
                    return None
                case "bool":
                    return text.lower() == "true"
                case "int":
                    return _integer(text)
                case "float":
                    return _real(text)
                case _:
                    return text
        except ValueError:
            self._complain(place, "not a number that the lab can read")
            return None

    def _complain(self, place: Place, text: str) -> None:
        self._problems.add(self._document.path, self._document.line(place), label(place), text)


def _integer(text: str) -> int:
    if len(text) > _LONGEST_NUMBER:
        raise ValueError(text)
    digits = text.replace("_", "").lower()
    unsigned = digits.lstrip("+-")
    return int(digits, 0) if unsigned.startswith(("0x", "0o", "0b")) else int(digits)


def _real(text: str) -> float:
    if len(text) > _LONGEST_NUMBER:
        raise ValueError(text)
    return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
