"""Markdown from the lab's own code: tables, and what classes, fields and comments say."""

from __future__ import annotations

import ast
import builtins
import collections.abc
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

GENERATED = (
    "<!-- Written by docs/reference/generate.py (`make docs`). Change the code that it reads, not this page. -->"
)

_WORDS = {
    str: "text",
    bool: "`true` or `false`",
    int: "whole number",
    float: "number",
    Path: "path",
    date: "date",
    datetime: "time",
    Any: "anything",
}


def page(title: str, *parts: str) -> str:
    """A whole page."""
    return "\n\n".join((f"# {title}", GENERATED, *(part.strip("\n") for part in parts))) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; cells are escaped."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]
    return "\n".join(lines)


def code(text: object) -> str:
    """Words set as code; nothing stays nothing."""
    return f"`{text}`" if str(text) else ""


def block(text: str, language: str = "text") -> str:
    """Lines set as they are."""
    return f"```{language}\n{text.strip(chr(10))}\n```"


def first_sentences(thing: object) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())


def comments(owner: type | ModuleType) -> Mapping[str, str]:
    """What the comment behind each attribute of a class says."""
    source = textwrap.dedent(inspect.getsource(owner))
    lines = source.splitlines()
    (tree,) = ast.parse(source).body
    said: dict[str, str] = {}
    if not isinstance(tree, ast.ClassDef):
        return said
    for node in tree.body:
        match node:
            case ast.AnnAssign(target=target) | ast.Assign(targets=[target]):
                pass
            case _:
                continue
        comment = re.search(r"\s#\s(?!noqa)(.+)$", lines[(node.end_lineno or node.lineno) - 1])
        if isinstance(target, ast.Name) and comment:
            said[target.id] = comment[1]
    return said


def members(enumeration: type[Enum]) -> list[tuple[str, str]]:
    """Each value of an enumeration with its comment."""
    said = comments(enumeration)
    return [(code(member.value), said.get(name, "")) for name, member in enumeration.__members__.items()]


def keys(model: type[BaseModel], *, prefix: str = "") -> str:
    """The keys of a file's model: name, type, default, meaning."""
    owners = [owner for owner in reversed(model.__mro__) if issubclass(owner, BaseModel) and owner is not BaseModel]
    said = {name: text for owner in owners for name, text in comments(owner).items()}
    rows = []
    for name, field in model.model_fields.items():
        meaning = field.description or said.get(name, "")
        required = field.is_required()
        default = "" if required else _default(field.default, field.default_factory)
        rows.append(
            (
                code(prefix + (field.alias or name)),
                type_words(field.annotation) + _bounds(field),
                "yes" if required else "",
                default,
                meaning,
            )
        )
    return table(("key", "type", "demanded", "default", "meaning"), rows)


def type_words(annotation: Any) -> str:
    """What may stand for a value, for people who write YAML or read JSON."""
    arguments = get_args(annotation)
    match get_origin(annotation):
        case typing.Literal:
            return " or ".join(code(value) for value in arguments)
        case typing.Annotated:
            return type_words(arguments[0])
        case typing.Union | types.UnionType:
            return " or ".join(dict.fromkeys(type_words(one) for one in arguments if one is not type(None)))
        case collections.abc.Sequence | builtins.tuple | builtins.list:
            return f"list of {type_words(arguments[0])}"
        case builtins.dict | collections.abc.Mapping:
            return f"mapping to {type_words(arguments[1])}"
        case _ if inspect.isclass(annotation) and issubclass(annotation, Enum):
            return " or ".join(code(member.value) for member in annotation)
        case _ if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
            return "mapping (see below)"
        case _:
            return _WORDS.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _bounds(field: FieldInfo) -> str:
    """The limits of a number."""
    said = {
        name: getattr(limit, name) for limit in field.metadata for name in ("ge", "gt", "le") if hasattr(limit, name)
    }
    least = f"from {said['ge']}" if "ge" in said else f"more than {said['gt']}" if "gt" in said else ""
    return f" {least} to {said['le']}" if "le" in said else f" {least}" if least else ""


def _default(value: Any, factory: Any) -> str:
    if factory is not None:
        value = factory()
    if value is PydanticUndefined or value is None or value in ("", (), {}, []) or isinstance(value, BaseModel):
        return ""
    if isinstance(value, bool):
        return code(str(value).lower())
    return code(value.value if isinstance(value, Enum) else value)


def _cell(value: object) -> str:
    text = " ".join(str(value).split()).replace("|", "\\|")
    # Outside of code, what looks like a tag would vanish.
    return text if "`" in text else text.replace("<", "&lt;")
