"""Checks plain values against a model and turns what pydantic says into problems with line and suggestion."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from lab.inventory.positions import Place, Spot
from lab.inventory.problems import Problems, did_you_mean
from lab.secrets import REFERENCE_FORMS, Secret

M = TypeVar("M", bound=BaseModel)

Locate = Callable[[Place], Spot]
"""From a place in the checked values to where a person wrote it."""

_WANTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a smaller number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "tuple_type": "a list",
    "list_type": "a list",
    "set_type": "a list",
    "frozen_set_type": "a list",
    "path_type": "a path",
    "date_type": "a date such as 2027-03-31",
    "date_parsing": "a date such as 2027-03-31",
    "date_from_datetime_parsing": "a date such as 2027-03-31",
    "date_from_datetime_inexact": "a date such as 2027-03-31",
}


@dataclass(frozen=True)
class _Told:
    """One error as pydantic gives it."""

    kind: str
    place: Place
    message: str
    given: Any
    context: Mapping[str, Any]


def check(model: type[M], values: object, locate: Locate, problems: Problems, *, prefix: str = "") -> M | None:
    """The model of these values, or `None` and a problem for each mistake.

    `prefix` is what the outermost keys bear in the file and not in the model.
    """
    try:
        # JSON, because in it a strict model takes a path, a date or an enum as the text that people write.
        return model.model_validate_json(json.dumps(values))
    except ValidationError as reason:
        for error in reason.errors(include_url=False):
            told = _Told(error["type"], error["loc"], error["msg"], error["input"], error.get("ctx", {}))
            place = _without_tags(model, told.place)
            spot = locate(place[:-1] if told.kind == "missing" else place)
            problems.add(spot.path, spot.line, spot.label, _text(model, told, place, prefix if len(place) == 1 else ""))
        return None


def _text(model: type[BaseModel], told: _Told, place: Place, prefix: str) -> str:
    context = told.context
    if told.kind == "missing":
        return f'the key "{prefix}{place[-1]}" is missing'
    if told.kind == "extra_forbidden":
        return f"unknown key{did_you_mean(str(place[-1]), _keys_at(model, place[:-1]), prefix=prefix)}"
    if told.kind != "value_error" and _is_secret(model, place):
        return f"a secret is written as a reference ({REFERENCE_FORMS})"  # what was given may be the secret
    if told.kind in ("literal_error", "enum"):
        choices = [part.strip("'") for part in str(context["expected"]).replace(" or ", ", ").split(", ")]
        meant = did_you_mean(told.given, choices) if isinstance(told.given, str) else ""
        return f"wanted one of {', '.join(choices)}, got {shown(told.given)}{meant}"
    if told.kind in ("union_tag_not_found", "union_tag_invalid"):
        return "wanted a mapping with one of the keys build, file, url, package"
    if told.kind == "value_error":
        return str(context["error"])
    if told.kind in _WANTED:
        quotes = isinstance(told.given, int | float) and told.kind == "string_type"
        return f"wanted {_WANTED[told.kind]}, got {shown(told.given)}{' (write it in quotes)' if quotes else ''}"
    said = told.message.replace("String", "The text").replace("Input", "The value").replace("Tuple", "The list")
    return f"{said[0].lower()}{said[1:]}, got {shown(told.given)}"


def shown(value: object) -> str:
    """A value as it is quoted in a message; of a mapping or a list only that it is one."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if value is None:
        return "nothing"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str | int | float) else type(value).__name__


def _without_tags(model: type[BaseModel], place: Place) -> Place:
    """A place without the names of union members, which pydantic puts between the keys."""
    kept: list[str | int] = []
    members: Sequence[Any] = (model,)
    for step in place:
        tagged = [member for member in members if _tag_of(member) == step]
        if tagged and len(members) > 1:
            members = tagged
            continue
        kept.append(step)
        members = _models_under(members, step)
    return tuple(kept)


def _keys_at(model: type[BaseModel], place: Place) -> list[str]:
    members: Sequence[Any] = (model,)
    for step in place:
        members = _models_under(members, step)
    return sorted({name for member in members for name in getattr(member, "model_fields", {})})


def _is_secret(model: type[BaseModel], place: Place) -> bool:
    members: Sequence[Any] = (model,)
    for step in place[:-1]:
        members = _models_under(members, step)
    infos = [getattr(member, "model_fields", {}).get(place[-1]) for member in members] if place else []
    return any(mentions_secret(info.annotation) for info in infos if info is not None)


def mentions_secret(annotation: Any) -> bool:
    """Whether a field so annotated may hold a `Secret`."""
    return annotation is Secret or any(mentions_secret(part) for part in getattr(annotation, "__args__", ()))


def _models_under(members: Sequence[Any], step: str | int) -> Sequence[Any]:
    """The models that the value under a key may be; a step into a list stays with the list's models."""
    if isinstance(step, int):
        return members
    found: list[Any] = []
    for member in members:
        info = getattr(member, "model_fields", {}).get(step)
        if info is not None:
            found += _models_in(info.annotation)
    return found


def _models_in(annotation: Any) -> list[Any]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models_in(part)]


def _tag_of(model: Any) -> str:
    """The tag of a member of `ImageSource`: by agreement the name of its first field."""
    return next(iter(getattr(model, "model_fields", {})), "")
