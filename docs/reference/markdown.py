"""Markdown from the lab's own code: tables, and what classes, fields and comments say."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from types import ModuleType
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

GENERATED = (
    "<!-- Written by docs/reference/generate.py (`make docs`). Change the code that it reads, not this page. -->"
)


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
            (code(prefix + (field.alias or name)), type_name(model, name), "yes" if required else "", default, meaning)
        )
    return table(("key", "type", "demanded", "default", "meaning"), rows)


def type_name(model: type[BaseModel], name: str) -> str:
    """The type of a field as its author wrote it."""
    for owner in model.__mro__:
        written = inspect.get_annotations(owner).get(name)
        if written is not None:
            return code(written if isinstance(written, str) else getattr(written, "__name__", str(written)))
    return ""


def _default(value: Any, factory: Any) -> str:
    if factory is not None:
        value = factory()
    if value is PydanticUndefined or value is None or value in ("", (), {}, []):
        return ""
    return code(value.value if isinstance(value, Enum) else value)


def _cell(value: object) -> str:
    text = " ".join(str(value).split()).replace("|", "\\|")
    # Outside of code, what looks like a tag would vanish.
    return text if "`" in text else text.replace("<", "&lt;")
