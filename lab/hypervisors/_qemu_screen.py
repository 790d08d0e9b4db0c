"""What a QEMU machine's display shows, as PNG.

QEMU before 7.1 writes PPM alone, so that is what we ask for and turn into PNG.
"""

from __future__ import annotations

import os
import re

from lab.errors import HypervisorRefused
from lab.hypervisors import _picture
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
    return _picture.png(width, height, pixels)
