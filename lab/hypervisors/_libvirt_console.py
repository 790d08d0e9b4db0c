"""The serial console of a libvirt machine: logs that are written at the host, and libvirt's stream to type on it.

virtlogd begins a new file when one is full and keeps a few of the older ones (NAME.0 is the last before NAME), so what
a guest writes takes a bounded part of the disk.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from lab import log, waiting
from lab.errors import HypervisorRefused, WaitedTooLong
from lab.hypervisors import _libvirt_power as power
from lab.hypervisors import _libvirt_sdk
from lab.hypervisors._libvirt_link import LibvirtRefused
from lab.hypervisors._libvirt_power import Machine

LOG = "console"
_KEPT = 1 << 20  # bytes of each end of an endless console
_TYPE_S = 60.0
_AT_ONCE = 1024
_DRAIN = 1 << 16
_log = log.get(__name__)


def read(machine: Machine) -> bytes:
    """What the guest said in all its boots; of an endless console the beginning of what is kept, and the end."""
    parts = _parts(machine)
    size = sum(parts.values())
    if size <= 2 * _KEPT:
        return _cut(machine, parts, 0, size)
    first, last = _cut(machine, parts, 0, _KEPT), _cut(machine, parts, size - _KEPT, _KEPT)
    return first + b"\n[%d bytes of the console are not kept]\n" % (size - len(first) - len(last)) + last


def _parts(machine: Machine) -> Mapping[str, int]:
    """Sizes of its files by their names, oldest first."""
    name = machine.file(LOG)
    found = _sizes_here(machine, name) if machine.site.is_here else machine.site.pool.sizes(name)
    older = [one for one in found if re.fullmatch(r"\.[0-9]{1,4}", one.removeprefix(name))]
    older.sort(key=lambda one: int(one.rpartition(".")[2]), reverse=True)
    return {one: found[one] for one in (*older, name) if one in found}


def _sizes_here(machine: Machine, name: str) -> Mapping[str, int]:
    found = {}
    for path in Path(machine.path(LOG)).parent.glob(f"{name}*"):
        with suppress(FileNotFoundError):  # it became another's name meanwhile
            found[path.name] = path.stat().st_size
    return found


def _cut(machine: Machine, parts: Mapping[str, int], begin: int, length: int) -> bytes:
    """So many bytes of all parts as if they were one."""
    found = bytearray()
    for name, size in parts.items():
        if begin < size and len(found) < length:
            found += _part(machine, name, begin, min(size - begin, length - len(found)))
        begin = max(0, begin - size)
    return bytes(found)


def _part(machine: Machine, name: str, begin: int, length: int) -> bytes:
    if not machine.site.is_here:
        return machine.site.pool.download(name, begin, length)
    try:
        with Path(machine.site.pool.path(name)).open("rb") as file:
            file.seek(begin)
            return file.read(length)
    except FileNotFoundError:
        return b""


def type_bytes(machine: Machine, data: bytes) -> None:
    """As if typed at the terminal; what the guest does not take yet waits on the line, as long as this process lives.

    Raises `HypervisorRefused` when it takes nothing off the line.
    """
    left = memoryview(data)
    opened_anew = False
    while left:
        try:
            left = left[_taken(machine, bytes(left[:_AT_ONCE])) :]
        except LibvirtRefused:
            _drop(machine)  # somebody else took the console, or the machine was started anew
            if opened_anew:
                raise
            opened_anew = True
        except WaitedTooLong as reason:
            _drop(machine)
            raise HypervisorRefused(
                f"{machine.name} takes nothing off its serial line: {len(left)} bytes were left after {_TYPE_S:.0f} s"
            ) from reason


def _taken(machine: Machine, part: bytes) -> int:
    """How much of it went. Raises `WaitedTooLong` when nothing does."""
    put = partial(_put, _stream(machine), part)
    return waiting.until(
        lambda: power.on_running(machine, "typing", put, again=False),
        what=f"{machine.name} to take what was typed",
        timeout_s=_TYPE_S,
        longest_pause_s=0.1,
    )


def forget(machine: Machine) -> None:
    """Close the line of a machine that is going. Safe to call twice."""
    _drop(machine)


def _put(stream: Any, part: bytes, domain: Any) -> int:
    del domain
    return max(0, int(stream.send(part)))  # -2: the line is full


def _stream(machine: Machine) -> Any:
    """The open line; it stays open, because what a guest has not taken is lost when it is closed."""
    link = power.events_of(machine)
    known = link.consoles.get(machine.uuid)
    if known is not None:
        return known

    def connect(domain: Any) -> Any:
        sdk = _libvirt_sdk.load()
        stream = domain.connect().newStream(sdk.VIR_STREAM_NONBLOCK)
        # What a killed controller held is taken from it.
        domain.openConsole(None, stream, sdk.VIR_DOMAIN_CONSOLE_FORCE)
        wanted = sdk.VIR_STREAM_EVENT_READABLE | sdk.VIR_STREAM_EVENT_ERROR | sdk.VIR_STREAM_EVENT_HANGUP
        stream.eventAddCallback(wanted, _drain, None)
        return stream

    link.consoles[machine.uuid] = power.on_running(machine, "opening the console", connect, again=False)
    return link.consoles[machine.uuid]


def _drain(stream: Any, events: int, opaque: object) -> None:
    """What the guest says is in the log; left in the stream it would stop the guest."""
    del opaque
    sdk = _libvirt_sdk.load()
    try:
        while not events & (sdk.VIR_STREAM_EVENT_ERROR | sdk.VIR_STREAM_EVENT_HANGUP):
            got = stream.recv(_DRAIN)
            if got == -2:
                return
            if not got:
                break
    except sdk.libvirtError as reason:
        _log.debug("console.lost", reason=str(reason)[:200])
    _unwatch(stream)


def _unwatch(stream: Any) -> None:
    """A stream that ended is readable for ever: it would keep the thread of the events busy."""
    sdk = _libvirt_sdk.load()
    try:
        stream.eventRemoveCallback()
    except sdk.libvirtError as reason:
        _log.debug("console.unwatched", reason=str(reason)[:200])


def _drop(machine: Machine) -> None:
    sdk = _libvirt_sdk.load()
    for place in machine.site.places:
        stream = place.link.consoles.pop(machine.uuid, None)
        if stream is None:
            continue
        _unwatch(stream)
        try:
            stream.abort()
        except sdk.libvirtError as reason:
            _log.debug("console.lost", reason=str(reason)[:200])
