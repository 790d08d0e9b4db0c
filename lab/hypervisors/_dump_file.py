"""A dump of a machine's memory on this machine: a new file, for its owner alone, that is whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from lab import process
from lab.errors import HypervisorRefused

_PIECE = 1 << 16


@contextmanager
def begun(file: Path) -> Iterator[BinaryIO]:
    """The file, empty and open. Raises `HypervisorRefused` when one is there or cannot be, `LabDiskFull`."""
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError as reason:
        raise HypervisorRefused(f"{file} is there already", hint="name a file that is not there") from reason
    except OSError as reason:
        raise HypervisorRefused(f"{file} cannot be written: {reason.strerror}") from reason
    try:
        with os.fdopen(descriptor, "r+b", buffering=0) as opened:
            yield opened
    except OSError as reason:
        file.unlink(missing_ok=True)
        raise process.disk_full_or(reason, f"writing {file}") from reason
    except BaseException:
        file.unlink(missing_ok=True)
        raise


def append(opened: BinaryIO, data: bytes) -> None:
    """Write behind what is there, with holes for what is zero; `end` comes behind the last. Raises `OSError`."""
    for start in range(0, len(data), _PIECE):
        piece = data[start : start + _PIECE]
        if piece.count(0) == len(piece):
            opened.seek(len(piece), os.SEEK_CUR)
        else:
            view = memoryview(piece)
            while view:
                view = view[opened.write(view) :]


def end(opened: BinaryIO) -> None:
    """Give the file its length, which a hole at its end does not. Raises `OSError`."""
    opened.truncate(opened.tell())


def require_core(opened: BinaryIO, what: str) -> None:
    """Raises `HypervisorRefused` when what was written does not begin as an ELF file."""
    opened.seek(0)
    head = opened.read(4)
    if head != b"\x7fELF":
        raise HypervisorRefused(f"{what} is no ELF file: it begins with {head!r}")
