"""What a libvirt machine's display shows: libvirt's stream of a PNG file."""

from __future__ import annotations

from typing import Any

from lab.errors import HypervisorRefused
from lab.hypervisors import _libvirt_power as power
from lab.hypervisors._libvirt_power import Machine

_LARGEST = 64 << 20  # the guest chooses the resolution
_PNG = b"\x89PNG\r\n\x1a\n"


def shot(machine: Machine) -> bytes:
    """A PNG file. Raises `HypervisorRefused` when libvirt gives something else."""

    def take(domain: Any) -> bytes:
        stream, picture = domain.connect().newStream(0), bytearray()
        domain.screenshot(stream, 0, 0)
        stream.recvAll(_keep, picture)
        stream.finish()
        return bytes(picture)

    picture = power.on_running(machine, "screenshot", take)
    if not picture.startswith(_PNG):
        raise HypervisorRefused(f"libvirt's screenshot is no PNG: {picture[:16]!r}")
    return picture


def _keep(stream: Any, data: bytes, kept: bytearray) -> int:
    del stream
    if len(kept) + len(data) > _LARGEST:
        raise HypervisorRefused(f"the display is larger than {_LARGEST >> 20} MiB")
    kept.extend(data)
    return len(data)
