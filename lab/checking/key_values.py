"""The guest's end of a key-value store that it shares with its host, spoken to without a program for it.

Xenstore: xen/include/public/io/xs_wire.h. Numbers are little endian; a message is a head of four of them and a body.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from lab.contracts import CommandResult
from lab.errors import HypervisorRefused, NotSupported

Run = Callable[..., CommandResult]  # as `Guest.run`
STORES = ("xenstore",)
"""Those whose guest's end is known here (`ExchangesKeyValues.key_store`)."""

_READ, _WRITE, _ERROR = 2, 11, 16
_HEAD = struct.Struct("<IIII")  # what, request, transaction, length of the body
_LARGEST = _HEAD.size + 4096
_FOLDER = "data"  # of a domain: libxl lets the guest write there (tools/libs/light/libxl_create.c)
_NO_DEVICE = 65
# The kernel puts a message together from any number of writes, and one read gives all of its answer
# (drivers/xen/xenbus/xenbus_dev_frontend.c). Older kernels have the device in a file system of Xen's alone.
_EXCHANGE = f"""
device=/dev/xen/xenbus
[ -e $device ] || device=/proc/xen/xenbus
[ -e $device ] || mount -t xenfs xenfs /proc/xen 2>/dev/null
[ -e $device ] || exit {_NO_DEVICE}
exec 3<>$device && cat >&3 && dd bs={_LARGEST} count=1 <&3 2>/dev/null
"""


@dataclass(frozen=True)
class GuestKeys:
    """The keys as the guest sees them; names and values are bytes, for a guest may use any."""

    run: Run

    def read(self, name: str) -> bytes | None:
        """What is there, `None` when nothing is. Raises `NotSupported` for a guest that has no way to its store."""
        return self._ask(_READ, f"{_FOLDER}/{name}\0".encode())

    def write(self, name: str, value: bytes) -> None:
        """Raises `HypervisorRefused` when the store does not take it, `NotSupported`."""
        if self._ask(_WRITE, f"{_FOLDER}/{name}\0".encode() + value) is None:
            raise HypervisorRefused(f"xenstore has no place for the guest's {name!r}")

    def _ask(self, what: int, body: bytes) -> bytes | None:
        result = self.run("sh", "-c", _EXCHANGE, stdin=_HEAD.pack(what, 1, 0, len(body)) + body)
        if result.status == _NO_DEVICE:
            raise NotSupported("this guest's kernel has no device for xenstore: neither /dev/xen/xenbus nor xenfs")
        if result.status != 0 or len(result.stdout) < _HEAD.size:
            raise HypervisorRefused(f"the guest's xenbus gives no answer: {result.err[:200]!r}")
        kind, _, _, length = _HEAD.unpack_from(result.stdout)
        said = result.stdout[_HEAD.size :][:length]
        if kind == what:
            return said
        if kind == _ERROR and said.rstrip(b"\0") == b"ENOENT":
            return None
        raise HypervisorRefused(f"xenstore refuses the guest: {said[:40]!r}")


def guest_keys(store: str, run: Run) -> GuestKeys:
    """The guest's end of that store; `run` runs a program in the guest. Raises `NotSupported` for an unknown store."""
    if store not in STORES:
        raise NotSupported(f"the lab does not know how a guest speaks to {store!r} (it knows {', '.join(STORES)})")
    return GuestKeys(run)
