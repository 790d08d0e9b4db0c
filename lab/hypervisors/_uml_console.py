"""The console log of a User-Mode Linux machine: bounded on disk, the beginning and the end are kept.

Imported by the warden inside the machine's namespaces too, so only the standard library.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

HEAD_BYTES = 1 << 20
TAIL_BYTES = 1 << 20
"""The tail is two files of this size, the older one is thrown away: at least this much of the end is there."""

_HEAD, _TAIL, _BEFORE, _DROPPED = "console.head", "console.tail", "console.tail-before", "console.dropped"


class BoundedLog:
    """Appends to the console log in a directory; a guest that never stops talking cannot fill the disk."""

    def __init__(self, directory: Path, *, head_bytes: int = HEAD_BYTES, tail_bytes: int = TAIL_BYTES) -> None:
        self._directory = directory
        self._tail_bytes = tail_bytes
        self._head = _appending(directory / _HEAD)
        self._tail = _appending(directory / _TAIL)
        self._room = max(0, head_bytes - self._head.tell())

    def write(self, data: bytes) -> None:
        """Append; raises `OSError` when the disk is full."""
        if self._room:
            part, data = data[: self._room], data[self._room :]
            self._head.write(part)
            self._room -= len(part)
        if not data:
            return
        self._tail.write(data)
        if self._tail.tell() >= self._tail_bytes:
            self._turn()

    def _turn(self) -> None:
        before = self._directory / _BEFORE
        if before.exists():
            count = self._directory / _DROPPED
            dropped = int(count.read_text()) if count.exists() else 0
            count.write_text(str(dropped + before.stat().st_size))
        self._tail.close()
        (self._directory / _TAIL).replace(before)
        self._tail = _appending(self._directory / _TAIL)


def read(directory: Path) -> bytes:
    """What is kept of the console; where a part of the middle is not, a line says how much."""
    dropped = _content(directory / _DROPPED)
    gap = b"\n[... %d bytes of the console are not kept ...]\n" % int(dropped) if dropped.isdigit() else b""
    return _content(directory / _HEAD) + gap + _content(directory / _BEFORE) + _content(directory / _TAIL)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _appending(path: Path) -> BinaryIO:
    log = path.open("ab", buffering=0)
    log.seek(0, os.SEEK_END)
    return log
