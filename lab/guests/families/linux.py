"""Guests of the Linux family: their facts, a new identity for a warm clone, how they reboot and power off."""

from __future__ import annotations

import re
import secrets
import socket
from datetime import UTC, datetime

from lab.contracts import LINE_PORT, Channel, CommandResult
from lab.errors import GuestCommandFailed
from lab.guests.facts import Facts
from lab.guests.families import _linux_facts, _linux_renewal, _linux_waiting
from lab.guests.families._linux_renewal import Renewal
from lab.guests.families._linux_waiting import WAITER_DIGEST, Server
from lab.guests.identity import Identity

__all__ = [
    "POWER_OFF",
    "REBOOT",
    "WAITER_DIGEST",
    "Renewal",
    "Server",
    "await_clock",
    "boot_id",
    "gather",
    "renew_identity",
    "tell_identity",
    "wait_for_identity",
]

REBOOT: tuple[str, ...] = ("reboot",)
POWER_OFF: tuple[str, ...] = ("poweroff",)

_BOOT_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def gather(channel: Channel, *, timeout_s: float = 120.0) -> Facts:
    """All facts in one round trip. Raises `GuestCommandFailed`, `CommandTimedOut`, `GuestUnreachable`."""
    separator = secrets.token_hex(12)
    result = channel.run(("/bin/sh", "-c", _linux_facts.SCRIPT, "sh", separator), timeout_s=timeout_s)
    return _linux_facts.read(result.stdout.decode(errors="replace"), separator)


def boot_id(channel: Channel, *, timeout_s: float = 60.0) -> str:
    """The kernel's random id of this boot. Raises `GuestCommandFailed`, `CommandTimedOut`, `GuestUnreachable`."""
    result = channel.run(("cat", "/proc/sys/kernel/random/boot_id"), timeout_s=timeout_s)
    if not _BOOT_ID.fullmatch(result.out):
        raise GuestCommandFailed(f"the guest has no boot id: {_said(result)}")
    return result.out


def renew_identity(channel: Channel, identity: Identity, authorized_key: str, now: datetime) -> Renewal:
    """Set clock, host name, machine id, host key, authorized key and stir the random generator: one round trip.

    The channel still shows the old host key; connect anew, with the new one pinned, and call `await_clock`: a guest
    whose `date` knows whole seconds only waits for the next one meanwhile.
    Raises `GuestCommandFailed`, `CommandTimedOut`, `GuestUnreachable`.
    """
    stdin = _linux_renewal.content(identity, authorized_key, now)
    result = channel.run(("/bin/sh", "-c", _linux_renewal.SCRIPT), stdin=stdin, timeout_s=60.0)
    if result.status != 0:
        raise GuestCommandFailed(
            f"the guest did not take its new identity: {_said(result)}",
            hint="delete the warm copy; the next run boots the guest anew",
        )
    return _linux_renewal.read(result.out, now, result.seconds)


def await_clock(channel: Channel, renewal: Renewal) -> Renewal:
    """Wait, a second at most, until the clock that was renewed is set.

    Raises `GuestCommandFailed` when it is not, `CommandTimedOut`, `GuestUnreachable`.
    """
    if renewal.ticking is None:
        return renewal
    argv = ("/bin/sh", "-c", _linux_renewal.CLOCK, "sh", str(renewal.ticking))
    return _linux_renewal.with_clock(renewal, channel.run(argv, timeout_s=60.0).out, datetime.now(UTC))


def wait_for_identity(channel: Channel, line: socket.socket) -> Server | None:
    """Leave a program waiting at the guest's end of an open line, for its copies; none where it cannot.

    It takes some seconds, because the guest may come to rest before. The program ends with the line.
    Raises `GuestCommandFailed`, `CommandTimedOut`, `GuestUnreachable`.
    """
    argv = ("/bin/sh", "-c", _linux_waiting.START, "sh", LINE_PORT, _linux_waiting.WAITER)
    result = channel.run(argv, timeout_s=180.0)
    if result.status != 0:
        raise GuestCommandFailed(f"nobody can be left waiting in the guest: {_said(result)}")
    return _linux_waiting.await_waiter(line) if result.out == "started" else None


def tell_identity(line: socket.socket, server: Server, identity: Identity) -> bool:
    """Give a copy in which somebody waits its identity, the time and entropy, before anybody logs in.

    Whether the random generator took the entropy in at once (see `Renewal`). Raises `GuestCommandFailed`,
    `GuestUnreachable`.
    """
    return _linux_waiting.tell(line, server, identity)


def _said(result: CommandResult) -> str:
    return f"status {result.status}, {(result.err or result.out)[-300:]!r}"
