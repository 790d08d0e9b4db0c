"""An initial RAM disk from a folder: the "newc" archive that Linux unpacks.

Format: Documentation/driver-api/early-userspace/buffer-format.rst of the Linux kernel.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import BinaryIO

_MAGIC = "070701"
_LAST = "TRAILER!!!"


def write(tree: Path, target: BinaryIO) -> None:
    """Archive everything below `tree`, owned by root, in a stable order and without times."""
    for number, path in enumerate(sorted(tree.rglob("*")), start=1):
        about = path.lstat()
        if stat.S_ISLNK(about.st_mode):
            content = str(path.readlink()).encode()
        elif stat.S_ISREG(about.st_mode):
            content = path.read_bytes()
        elif stat.S_ISDIR(about.st_mode):
            content = b""
        else:
            continue  # devices: the kernel makes them itself
        links = 2 if stat.S_ISDIR(about.st_mode) else 1
        _entry(target, path.relative_to(tree).as_posix(), (number, about.st_mode, links), content)
    _entry(target, _LAST, (0, 0, 1), b"")


def _entry(target: BinaryIO, name: str, about: tuple[int, int, int], content: bytes) -> None:
    number, mode, links = about
    raw_name = name.encode() + b"\0"
    # inode, mode, uid, gid, links, mtime, size, device major minor, rdev major minor, name's size, checksum
    fields = (number, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(raw_name), 0)
    head = (_MAGIC + "".join(f"{field:08x}" for field in fields)).encode() + raw_name
    target.write(head + bytes(-len(head) % 4))
    target.write(content + bytes(-len(content) % 4))
