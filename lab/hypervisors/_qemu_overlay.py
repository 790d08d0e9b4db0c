"""Making a machine's disks without starting programs: what `cp` and `qemu-img create` do for a layer on a disk.

Each of these programs costs tens of milliseconds, of a restore that takes some hundred. The commands stay what they
are, for whoever makes the machine by hand; those that are known here are carried out here.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Sequence
from pathlib import Path

from lab import process

_MAGIC, _VERSION = b"QFI\xfb", 3
_CLUSTER_BITS = 16
_CLUSTER = 1 << _CLUSTER_BITS
_HEADER_BYTES = 104
_BACKING_FORMAT = 0xE2792ACA
_LONGEST_NAME = 1023  # of the disk below


def carried_out(command: Sequence[str]) -> bool:
    """Do what a command says; false when it is none of those that are known. Raises `LabDiskFull`, `CommandFailed`."""
    try:
        return _carried_out(command)
    except OSError as reason:
        raise process.disk_full_or(reason, f"making {command[-1]}") from reason


def _carried_out(command: Sequence[str]) -> bool:
    match command:
        case ["cp", "--link", source, target]:
            Path(target).hardlink_to(source)
        case ["cp", "--preserve=mode", source, target]:
            shutil.copyfile(source, target)
            shutil.copymode(source, target)
        case ["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", target] if base.startswith("json:"):
            return _made(base, Path(target))
        case _:
            return False
    return True


def _made(base: str, target: Path) -> bool:
    below = Path(json.loads(base.removeprefix("json:"))["file"]["filename"])
    with below.open("rb") as disk:
        header = disk.read(32)
    if header[:4] != _MAGIC or len(header) < 32 or len(base.encode()) > _LONGEST_NAME:
        return False  # qemu-img has the words for it
    (size,) = struct.unpack(">Q", header[24:32])
    content = _layer(base.encode(), size)
    made = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    with os.fdopen(made, "wb") as file:
        file.write(content)
    return True


def _layer(base: bytes, size: int) -> bytes:
    """An empty qcow2 file over `base` (QEMU's docs/interop/qcow2.txt): header, reference counts, first-level table."""
    entries = max(1, -(-size // (_CLUSTER * _CLUSTER // 8)))
    level_1 = -(-entries * 8 // _CLUSTER)  # clusters
    name_at = _HEADER_BYTES + 16 + 8
    header = struct.pack(
        ">4sIQIIQIIQQIIQQQQII",
        *(_MAGIC, _VERSION, name_at, len(base), _CLUSTER_BITS, size),
        *(0, entries, 3 * _CLUSTER),  # no encryption; the first-level table
        *(_CLUSTER, 1),  # the table of reference counts: one cluster
        *(0, 0),  # no snapshots
        *(0, 0, 0),  # no features
        *(4, _HEADER_BYTES),  # counts of 2 to the 4th bits
    )
    # The format of the disk below, then the end of the extensions, then its name.
    header += struct.pack(">II8s", _BACKING_FORMAT, 5, b"qcow2") + struct.pack(">II", 0, 0) + base
    counts = struct.pack(">H", 1) * (3 + level_1)
    parts = (header, struct.pack(">Q", 2 * _CLUSTER), counts, bytes(level_1 * _CLUSTER))
    return b"".join(part + bytes(-len(part) % _CLUSTER) for part in parts)
