"""Copy-on-write files of User-Mode Linux: what a guest changed of a disk that nobody writes to.

Version 3 of the format in Linux' arch/um/drivers/cow_user.c: a header in big-endian order, a bitmap of the sectors that
were written, the sectors. linux.uml would make such a file itself, but in its sandbox it may make no files.
"""

from __future__ import annotations

import struct
from pathlib import Path

_HEADER = struct.Struct(">4sIIQIII4096s")  # magic, version, mtime, size, sector size, alignment, format, backing file
_MAGIC, _VERSION, _BITMAP = b"OOOM", 3, 0
_SECTOR, _ALIGNMENT = 512, 4096


def make(path: Path, base: Path, *, base_name: str) -> None:
    """An empty copy-on-write file above `base`, which linux.uml will find as `base_name`. Raises `OSError`.

    linux.uml refuses it when the base's size or time of change is not that of the header any more.
    """
    known = base.stat()
    sectors = -(-known.st_size // _SECTOR)
    end_of_bitmap = _HEADER.size + -(-sectors // 8)
    data = -(-end_of_bitmap // _ALIGNMENT) * _ALIGNMENT
    mtime = int(known.st_mtime) & 0xFFFFFFFF
    words = (_MAGIC, _VERSION, mtime, known.st_size, _SECTOR, _ALIGNMENT, _BITMAP, base_name.encode())
    with path.open("wb") as cow:
        cow.write(_HEADER.pack(*words))
        cow.truncate(data + known.st_size)
