"""The mark that `@check` puts on a test: which feature it belongs to and what it asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from lab.contracts import Capability

F = TypeVar("F", bound=Callable[..., None])

_ATTRIBUTE = "__lab_check__"


@dataclass(frozen=True)
class CheckMark:
    """The arguments of one `@check`; the catalogue reads the same from the file without running it."""

    feature: str
    level: str
    cold: bool
    needs: frozenset[Capability]
    families: tuple[str, ...]
    defect: bool
    timeout_s: float
    machines: int = 1
    spoils: bool = False


def put(function: F, mark: CheckMark) -> F:
    """Mark a test."""
    setattr(function, _ATTRIBUTE, mark)
    return function


def of(function: object) -> CheckMark | None:
    """The mark of a test, or `None` of anything that is not a check."""
    mark = getattr(function, _ATTRIBUTE, None)
    return mark if isinstance(mark, CheckMark) else None
