"""The beginning and the end of a log that may be endless, as text that cannot harm a page or its reader."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from lab.results import plain

HEAD_LINES, TAIL_LINES = 120, 400
_HEAD_BYTES, _TAIL_BYTES = 32 << 10, 96 << 10
LARGEST_COPY = 8 << 20
_LONGEST_LINE = 600


@dataclass(frozen=True)
class Excerpt:
    """What a page shows of a log."""

    head: str
    left_out: str  # "" when the whole log is shown, else a sentence
    tail: str
    size: int  # bytes of the log


def read(path: Path) -> Excerpt | None:
    """Head and tail of a log; `None` when there is none. Raises `OSError`."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            if size <= _HEAD_BYTES + _TAIL_BYTES:
                return _excerpt(file.read(), b"", size)
            head = file.read(_HEAD_BYTES)
            file.seek(size - _TAIL_BYTES)
            return _excerpt(head, file.read(), size)
    except FileNotFoundError:
        return None


def _excerpt(first: bytes, last: bytes, size: int) -> Excerpt:
    head = [_short(line) for line in plain.console(first).split("\n")]
    if not last and len(head) <= HEAD_LINES + TAIL_LINES:
        return Excerpt("\n".join(head).strip("\n"), "", "", size)
    # The first piece of the tail began somewhere within a line.
    tail = [_short(line) for line in plain.console(last).split("\n")[1:]] if last else head
    left_out = "The middle is left out."
    return Excerpt("\n".join(head[:HEAD_LINES]), left_out, "\n".join(tail[-TAIL_LINES:]).strip("\n"), size)


def _short(line: str) -> str:
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]} ... ({len(line)} characters)"


def copy(source: Path, target: Path) -> None:
    """Copy a log for readers of the site, whole up to `LARGEST_COPY` bytes, else its two ends. Raises `OSError`.

    Escape sequences are taken out and what else could deceive a terminal is shown: the raw bytes are in the run.
    """
    size = source.stat().st_size
    half = LARGEST_COPY // 2
    with source.open("rb") as log, target.open("wb") as file:
        if size <= LARGEST_COPY:
            file.write(_safe(log.read(LARGEST_COPY))[:LARGEST_COPY])
            return
        file.write(_safe(log.read(half))[:half])
        file.write(f"\n[... {size - 2 * half} bytes left out ...]\n".encode())
        log.seek(size - half)
        file.write(_safe(log.read(half))[-half:])


def _safe(data: bytes) -> bytes:
    # What stands for a control character is longer than it.
    return plain.console(data).encode()
