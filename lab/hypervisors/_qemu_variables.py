"""Reads the UEFI variables that a machine's firmware keeps, out of its variable store.

Format: edk2, MdeModulePkg/Include/Guid/VariableFormat.h (AUTHENTICATED_VARIABLE_HEADER). The guest writes there, so
nothing in it is believed to be whole.
"""

from __future__ import annotations

import struct
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab import process
from lab.errors import HypervisorRefused

GLOBAL = uuid.UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")
SECURE_BOOT_ENABLE = uuid.UUID("f0a30bc7-af08-4556-99c4-001009c93a44")
_STORE = uuid.UUID("aaf32c78-947b-439a-a180-2e144ec37792")
_VOLUME_MAGIC, _VOLUME_MAGIC_AT, _VOLUME_HEADER_SIZE_AT = b"_FVH", 40, 48
_STORE_HEADER = 28
_HEADER = struct.Struct("<HBBIQ16sIII16s")
_START, _ADDED = 0x55AA, 0x3F
_LARGEST = 16 << 20


@dataclass(frozen=True)
class Variable:
    """One variable that is in force."""

    name: str
    vendor: uuid.UUID
    data: bytes


def of_store(raw: bytes) -> Iterator[Variable]:
    """Every variable in force. Raises `HypervisorRefused` when it is no variable store."""
    if raw[_VOLUME_MAGIC_AT : _VOLUME_MAGIC_AT + 4] != _VOLUME_MAGIC:
        raise HypervisorRefused("the firmware's variables are not where they should be")
    (at,) = struct.unpack_from("<H", raw, _VOLUME_HEADER_SIZE_AT)
    if raw[at : at + 16] != _STORE.bytes_le or len(raw) < at + _STORE_HEADER:
        raise HypervisorRefused("the firmware's variables are of a kind that the lab does not read")
    (size,) = struct.unpack_from("<I", raw, at + 16)
    end = min(len(raw), at + size)
    at += _STORE_HEADER
    while at + _HEADER.size <= end:
        start, state, _, _, _, _, _, name_size, data_size, vendor = _HEADER.unpack_from(raw, at)
        if start != _START:
            return
        name_at, data_at = at + _HEADER.size, at + _HEADER.size + name_size
        if data_at + data_size > end:
            return
        if state == _ADDED:
            name = raw[name_at:data_at].decode("utf-16-le", errors="replace").rstrip("\0")
            yield Variable(name, uuid.UUID(bytes_le=vendor), raw[data_at : data_at + data_size])
        at = (data_at + data_size + 3) & ~3


def enforces_secure_boot(raw: bytes) -> bool:
    """Whether the firmware that keeps these has an owner's key and was not told to let everything pass."""
    found = {(variable.vendor, variable.name): variable.data for variable in of_store(raw)}
    return bool(found.get((GLOBAL, "PK"))) and found.get((SECURE_BOOT_ENABLE, "SecureBootEnable")) == b"\x01"


def read(store: Path) -> bytes:
    """The store in a qcow2 file, also of a machine that runs. Raises `CommandFailed`, `LabDiskFull`."""
    with tempfile.TemporaryDirectory(prefix="lab-") as folder:
        raw = Path(folder) / "raw"
        line = ["qemu-img", "convert", "-q", "--force-share", "-f", "qcow2", "-O", "raw", str(store), str(raw)]
        process.check(line, timeout_s=60)
        with raw.open("rb") as file:
            return file.read(_LARGEST)
