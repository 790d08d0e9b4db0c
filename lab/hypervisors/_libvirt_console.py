"""The serial console of a libvirt machine: a log that QEMU writes at the host, and libvirt's stream to type on it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from lab import waiting
from lab.errors import HypervisorRefused, WaitedTooLong
from lab.hypervisors import _libvirt_power as power
from lab.hypervisors import _libvirt_sdk
from lab.hypervisors._libvirt_power import Machine

LOG = "console"
_KEPT = 1 << 20  # bytes of each end of an endless console
_TYPE_S = 60.0
_AT_ONCE = 1024
_DRAIN = 1 << 16


def read(machine: Machine) -> bytes:
    """What the guest said in all its boots; of an endless console the beginning and the end."""
    if machine.site.is_here:
        return _bounded_file(Path(machine.path(LOG)))
    pool, name = machine.site.pool, machine.file(LOG)
    size = pool.size(name)
    if size <= 2 * _KEPT:
        return pool.download(name, 0, size)
    return _joined(pool.download(name, 0, _KEPT), size, pool.download(name, size - _KEPT, _KEPT))


def _bounded_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            first = file.read(2 * _KEPT + 1)
            if len(first) <= 2 * _KEPT:
                return first
            size = file.seek(0, 2)
            file.seek(size - _KEPT)
            return _joined(first[:_KEPT], size, file.read(_KEPT))
    except FileNotFoundError:
        return b""


def _joined(first: bytes, size: int, last: bytes) -> bytes:
    return first + b"\n[%d bytes of the console are not kept]\n" % (size - len(first) - len(last)) + last


def type_bytes(machine: Machine, data: bytes) -> None:
    """As if typed at the terminal. Raises `HypervisorRefused` when the guest takes nothing off the line."""
    sdk = _libvirt_sdk.load()

    def send(domain: Any) -> None:
        stream = domain.connect().newStream(sdk.VIR_STREAM_NONBLOCK)
        # Nobody else holds the console: what a killed controller held is taken from it.
        domain.openConsole(None, stream, sdk.VIR_DOMAIN_CONSOLE_FORCE)
        try:
            left = memoryview(data)
            while left:
                part = bytes(left[:_AT_ONCE])
                sent = waiting.until(
                    partial(_put, stream, part),
                    what=f"{machine.name} to take what was typed",
                    timeout_s=_TYPE_S,
                    longest_pause_s=0.1,
                )
                left = left[sent:]
        finally:
            _close(sdk, stream)

    try:
        power.on_running(machine, "typing on the console", send, limit_s=2 * _TYPE_S, again=False)
    except WaitedTooLong as reason:
        raise HypervisorRefused(f"{machine.name} takes nothing off its serial line: {reason}") from reason


def _put(stream: Any, part: bytes) -> int:
    """Bytes that went; what the guest says meanwhile is read away, or it would stop the line."""
    while stream.recv(_DRAIN) not in (-2, b"", 0):
        pass
    sent = stream.send(part)
    return max(0, int(sent))


def _close(sdk: Any, stream: Any) -> None:
    try:
        stream.finish()
    except sdk.libvirtError:
        stream.abort()
