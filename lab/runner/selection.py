"""Which cells a person asked for: globs over `host/guest/profile`, several, and some to leave out."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Iterable, Sequence

from lab.errors import ConfigurationError, NothingToRun
from lab.inventory.models import Matrix

_MOST_COMPARED = 2000


class Selection:
    """Says of each cell's name whether it is wanted, and remembers which globs were of use."""

    def __init__(self, select: Sequence[str], exclude: Sequence[str]) -> None:
        self._select = _Globs(select)
        self._exclude = _Globs(exclude)
        self._everything = not select
        self._any = False

    def wants(self, name: str) -> bool:
        """Whether the cell of that name is asked for; `*` crosses slashes, case counts."""
        selected = self._select.fit(name) or self._everything
        excluded = self._exclude.fit(name)
        wanted = selected and not excluded
        self._any = self._any or wanted
        return wanted

    def judge(self, matrix: Matrix) -> None:
        """Complain, once every cell was asked about, of globs that fitted none of them.

        Raises `NothingToRun`, `ConfigurationError`; both name what is near.
        """
        for glob in self._select.unused:
            raise NothingToRun(f'--select "{glob}" fits no cell', hint=_hint(glob, matrix))
        for glob in self._exclude.unused:
            # What a slip of the pen does not keep out would be run.
            raise ConfigurationError(f'--exclude "{glob}" fits no cell', hint=_hint(glob, matrix))
        if not self._any:
            raise NothingToRun("--exclude leaves no cell of those selected", hint="lab plan INVENTORY lists them")


class _Globs:
    def __init__(self, globs: Sequence[str]) -> None:
        self._each = {glob: re.compile(fnmatch.translate(glob)) for glob in globs}
        self._all = re.compile("|".join(pattern.pattern for pattern in self._each.values()) or r"(?!)")
        self.unused = list(self._each)

    def fit(self, name: str) -> bool:
        if self._all.match(name) is None:
            return False
        if self.unused:
            self.unused = [glob for glob in self.unused if self._each[glob].match(name) is None]
        return True


def _hint(glob: str, matrix: Matrix) -> str:
    near = nearest(glob, matrix)
    meant = " or ".join(f'"{name}"' for name in near)
    return f"did you mean {meant}?" if meant else "lab plan INVENTORY lists the cells"


def nearest(glob: str, matrix: Matrix) -> tuple[str, ...]:
    """Globs or cells like the given one that do fit; at most three."""
    names = [cell.name for cell, _ in matrix.cells()]
    parts = glob.split("/")
    if len(parts) == 3:
        kinds = [sorted({name.split("/")[kind] for name in names}) for kind in range(3)]
        mended = "/".join(_mended(part, known) for part, known in zip(parts, kinds, strict=True))
        if mended != glob and fnmatch.filter(names, mended):
            return (mended,)
    if len(parts) == 1:
        words = sorted({word for name in names for word in name.split("/")})
        close = difflib.get_close_matches(glob.strip("*"), words[:_MOST_COMPARED], n=3)
        if close:
            return tuple(f"*{word}*" for word in close)
    # Comparing costs time, so of a large matrix only a part is looked at.
    return tuple(difflib.get_close_matches(glob, names[:_MOST_COMPARED], n=3))


def _mended(part: str, known: Iterable[str]) -> str:
    """A part of a glob that fits, or the nearest name instead of it."""
    names = list(known)
    if fnmatch.filter(names, part):
        return part
    close = difflib.get_close_matches(part, names, n=1)
    return close[0] if close else part
