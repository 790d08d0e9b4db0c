"""What a check is handed to report with: measurements and evidence."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from lab import process
from lab.results.record import Measure

LARGEST_EVIDENCE = 4 << 20  # bytes of one file
MOST_EVIDENCE = 16  # files of one check

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_UNSAFE = re.compile(r"[^a-z0-9._-]+")
_CUT = b"\n(the rest was cut off)\n"


class Measurements:
    """The numbers that a check took; they go into its record whatever its outcome."""

    def __init__(self) -> None:
        self._taken: dict[str, Measure] = {}

    def add(self, name: str, value: float, unit: str, *, better: Literal["higher", "lower", "none"] = "none") -> None:
        """Note a number. Raises `ValueError` for a bad or repeated name and for what is not a number."""
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a name for a measurement: small letters, digits and underscores")
        if name in self._taken:
            raise ValueError(f"{name} was measured already")
        if not math.isfinite(value):
            raise ValueError(f"{name} is {value}, which is not a number")
        self._taken[name] = Measure(value=float(value), unit=unit, better=better)

    def taken(self) -> Mapping[str, Measure]:
        return dict(self._taken)


class Evidence:
    """Files that a check leaves for the reader, in a folder of its own, made when first used."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: list[Path] = []

    def attach(self, name: str, content: bytes | str) -> Path:
        """Keep bytes or text under a name; unsafe characters are replaced, too much content is cut.

        Raises `LabDiskFull`, `CommandFailed`; `ValueError` after too many files.
        """
        if len(self._files) >= MOST_EVIDENCE:
            raise ValueError(f"a check leaves at most {MOST_EVIDENCE} files")
        data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
        if len(data) > LARGEST_EVIDENCE:
            data = data[: LARGEST_EVIDENCE - len(_CUT)] + _CUT
        path = self._free(_safe(name))
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        except OSError as reason:
            raise process.disk_full_or(reason, f"writing {path}") from reason
        self._files.append(path)
        return path

    def files(self) -> tuple[Path, ...]:
        return tuple(self._files)

    def _free(self, name: str) -> Path:
        taken = {path.name for path in self._files}
        stem, dot, suffix = name.partition(".")
        for number in range(2, MOST_EVIDENCE + 2):
            if name not in taken:
                break
            name = f"{stem}-{number}{dot}{suffix}"
        return self._folder / name


def _safe(name: str) -> str:
    plain = _UNSAFE.sub("-", name.lower()).strip("-.")[-80:].lstrip("-.")
    return plain or "evidence"
