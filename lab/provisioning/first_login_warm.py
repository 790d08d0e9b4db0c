"""Warm copies: what is kept with one, and how the guest of each copy gets an identity of its own."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lab import log
from lab.contracts import HasLine, Machine, SshLogin
from lab.errors import ConfigurationError, GuestError, HypervisorRefused
from lab.guests.families import linux
from lab.guests.guest import Guest
from lab.guests.identity import Identity
from lab.provisioning import keys
from lab.provisioning.first_login import GuestMaker, log_in_anew, log_in_to_clone

_log = log.get(__name__)
_SCHEMA = 2
_LARGEST_BYTES = 1 << 16


@dataclass(frozen=True)
class Kept:
    """What is kept with a warm copy."""

    identity: Identity  # of the machine that was saved
    authorized_key: str  # the key that it lets in
    waits: linux.Server | None  # what waits in it for its new identity; none: log in and renew it

    def to_bytes(self) -> bytes:
        """JSON that holds a private key: keep it where only the lab reads it."""
        content = {
            "schema": _SCHEMA,
            "identity": self.identity.to_bytes().decode(),
            "authorized_key": self.authorized_key,
            "waits": self.waits,
            "waiter": linux.WAITER_DIGEST,
        }
        return json.dumps(content).encode()

    def require_key(self) -> None:
        """Raises `ConfigurationError` when the lab's key is not the one that the copy lets in."""
        if self.authorized_key != keys.client_key().public:
            raise ConfigurationError("the warm copy lets in a key that the lab does not use any more")

    @staticmethod
    def from_bytes(data: bytes) -> Kept:
        """Raises `ConfigurationError`, which never quotes the data, also for what another lab kept."""
        damaged = ConfigurationError("what is kept with a warm copy is damaged, or another lab's", hint="delete it")
        try:
            content = json.loads(data) if len(data) <= _LARGEST_BYTES else None
        except (ValueError, RecursionError):
            raise damaged from None
        if not isinstance(content, dict) or content.get("schema") != _SCHEMA:
            raise damaged
        if content.get("waiter") != linux.WAITER_DIGEST:
            raise ConfigurationError("in a warm copy another lab's program waits", hint="the next run makes it anew")
        identity, key, waits = (content.get(name) for name in ("identity", "authorized_key", "waits"))
        if not isinstance(identity, str) or not isinstance(key, str) or waits not in (None, *linux.Server):
            raise damaged
        return Kept(Identity.from_bytes(identity.encode()), key, None if waits is None else linux.Server(waits))


@contextmanager
def kept_while(machine: Machine, guest: Guest, identity: Identity) -> Iterator[Kept]:
    """What to keep with a copy of a running machine; in the block somebody waits in its guest, where that can be."""
    with contextlib.ExitStack() as until_saved:
        waits = None
        try:
            if isinstance(machine, HasLine):
                line = until_saved.enter_context(contextlib.closing(machine.line()))
                waits = linux.wait_for_identity(guest.channel, line)
        except (GuestError, HypervisorRefused) as reason:
            # Only speed is lost: copies are renewed over SSH. What the guest suffered the first check will say.
            _log.warning("warm.nobody-waits", machine=machine.name, reason=reason)
        yield Kept(identity, keys.client_key().public, waits)


def log_in_to_copy(machine: Machine, make: GuestMaker, kept: Kept, login: SshLogin, identity: Identity) -> Guest:
    """Log in to a restored copy, which has got clock, identity and entropy of its own before any check sees it.

    `login` is that of the machine that was saved. Raises `GuestError`, `WaitedTooLong`.
    """
    if kept.waits is not None and isinstance(machine, HasLine):
        try:
            with contextlib.closing(machine.line()) as line:
                linux.tell_identity(line, kept.waits, identity)
        except GuestError as reason:
            _log.warning("clone.line-failed", machine=machine.name, reason=reason)
        else:
            # Who shows the new host key has been told it, over the line: there is no need for a login before.
            return log_in_anew(machine, make, SshLogin(login.user, login.private_key, identity.host_key_public))
    return log_in_to_clone(machine, make, login, identity)
