"""Append-only files of lines: a line is written whole or not at all, and read up to the last whole one."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabDiskFull, RunError
from lab.process import disk_full_or


@dataclass(frozen=True)
class Line:
    """One line of a file, without its newline; `number` counts from 1."""

    number: int
    data: bytes


@dataclass(frozen=True)
class Problem:
    """What is wrong at one place of a run; everything else of the run stays readable."""

    path: Path
    line: int | None
    what: str

    def __str__(self) -> str:
        place = str(self.path) if self.line is None else f"{self.path}:{self.line}"
        return f"{place}: {self.what}"


def append(path: Path, text: str) -> None:
    """Add one line; after it the file holds the whole line or, with an error, none of it.

    Several processes may append to one file. A torn line that a killed writer left at the end is cut off.
    Raises `LabDiskFull`, `RunError`; `ValueError` when the text is more than one line.
    """
    if "\n" in text:
        raise ValueError("one line at a time")
    data = text.encode() + b"\n"
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    except OSError as reason:
        raise _error(reason, path) from reason
    try:
        # Released by closing; a writer that was killed therefore holds nothing.
        fcntl.flock(file, fcntl.LOCK_EX)
        size = _end_of_last_line(file)
        _write_or_undo(file, data, size)
    except OSError as reason:
        raise _error(reason, path) from reason
    finally:
        os.close(file)


def read(path: Path) -> list[Line]:
    """The whole lines of a file; what follows the last newline was never finished and is left out.

    A file that is not there has no lines. Raises `RunError`.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as reason:
        raise RunError(f"{path} cannot be read: {reason.strerror}") from reason
    *whole, _torn = data.split(b"\n")
    return [Line(number, line) for number, line in enumerate(whole, start=1)]


def replace(path: Path, text: str) -> None:
    """Put a file's content there whole or leave what was there. Raises `LabDiskFull`, `RunError`."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
    except OSError as reason:
        draft.unlink(missing_ok=True)
        raise _error(reason, path) from reason


def _end_of_last_line(file: int) -> int:
    size = os.fstat(file).st_size
    if size == 0 or os.pread(file, 1, size - 1) == b"\n":
        return size
    end = size
    while end > 0:
        start = max(0, end - 65536)
        newline = os.pread(file, end - start, start).rfind(b"\n")
        if newline >= 0:
            size = start + newline + 1
            break
        end = start
    else:
        size = 0
    os.ftruncate(file, size)
    return size


def _write_or_undo(file: int, data: bytes, size: int) -> None:
    written = 0
    try:
        while written < len(data):
            written += os.write(file, data[written:])
    except OSError:
        # On a full disk a part of the line may be there. Devices cannot be truncated and hold nothing anyway.
        if written:
            os.ftruncate(file, size)
        raise


def _error(reason: OSError, path: Path) -> LabDiskFull | RunError:
    found = disk_full_or(reason, f"writing {path}")
    return found if isinstance(found, LabDiskFull) else RunError(f"{path} cannot be written: {reason.strerror}")
