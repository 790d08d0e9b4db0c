"""Problems of an inventory: collected while it is read, shown all at once as `file:line: key: what is wrong`."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from lab.errors import InventoryProblems

_LONGEST_KEY = 120
_LONGEST_TEXT = 600


@dataclass(frozen=True, order=True)
class Problem:
    """One mistake; `line` counts from 1 and is 0 where no line is to blame."""

    file: str
    line: int
    key: str
    text: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.key}: {self.text}" if self.key else f"{place}: {self.text}"


@dataclass
class Problems:
    """Collects problems; the same one twice counts once."""

    _found: set[Problem] = field(default_factory=set)

    def add(self, file: Path, line: int, key: str, text: str) -> None:
        where = printable(os.path.normpath(file), longest=_LONGEST_TEXT)
        self._found.add(Problem(where, line, printable(key, longest=_LONGEST_KEY), printable(text)))

    def __len__(self) -> int:
        return len(self._found)

    def raise_if_any(self) -> None:
        """Raise `InventoryProblems` with all of them, in the order of files and lines."""
        if self._found:
            raise InventoryProblems([str(problem) for problem in sorted(self._found)])


def printable(text: str, *, longest: int = _LONGEST_TEXT) -> str:
    """Text that a terminal shows as it is: control characters escaped, too long a one shortened."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def did_you_mean(word: str, known: Iterable[str], *, prefix: str = "") -> str:
    """` (did you mean "x"?)` when a known word is close, else nothing; what `prefix` adds is not compared."""
    close = nearest(word, known)
    return f' (did you mean "{prefix}{close}"?)' if close else ""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most like this one, or `None`."""
    # Comparing costs the product of the lengths, so a page of text is not compared.
    close = difflib.get_close_matches(word[:_LONGEST_KEY], list(known), n=1)
    return close[0] if close else None


def unknown(kind: str, word: str, known: Iterable[str]) -> str:
    """The sentence about a name that is not there: the nearest one, and those that exist."""
    names = sorted(known)
    listed = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    close = nearest(word, names)
    meant = f'did you mean "{close}"? ' if close else ""
    return f'no {kind} "{word}" ({meant}known: {listed or "none"})'
