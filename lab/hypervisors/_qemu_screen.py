"""What a QEMU machine's display shows, as PNG.

QEMU before 7.1 writes PPM alone, so that is what we ask for and turn into PNG (PNG 1.2, W3C REC-PNG).
"""

from __future__ import annotations

import os
import re
import struct
import zlib

from lab.errors import HypervisorRefused
from lab.hypervisors import _qemu_power as power
from lab.hypervisors._qemu_store import Directory

_HEADER = re.compile(rb"P6\s+(\d+)\s+(\d+)\s+255\s")
_LARGEST = 64 << 20  # the guest chooses the resolution


def shot(directory: Directory) -> bytes:
    """A PNG file of the display. Raises `HypervisorRefused`."""
    path = directory.path / f"screen-{os.urandom(4).hex()}.ppm"
    try:
        with power.monitor_of(directory) as monitor:
            monitor.command("screendump", {"filename": str(path)})
        if path.stat().st_size > _LARGEST:
            raise HypervisorRefused(f"the display is larger than {_LARGEST >> 20} MiB")
        return png(path.read_bytes())
    finally:
        path.unlink(missing_ok=True)


def png(ppm: bytes) -> bytes:
    """PNG from binary PPM with 8 bits a channel. Raises `HypervisorRefused` for anything else."""
    header = _HEADER.match(ppm)
    if header is None:
        raise HypervisorRefused(f"QEMU's screen dump is no PPM: {ppm[:20]!r}")
    width, height = int(header[1]), int(header[2])
    pixels, line = ppm[header.end() :], width * 3
    if len(pixels) < line * height:
        raise HypervisorRefused(f"QEMU's screen dump of {width} x {height} ends too early")
    # Each line begins with its filter; 0 is none.
    rows = b"".join(b"\0" + pixels[start : start + line] for start in range(0, line * height, line))
    shape = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", shape) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
