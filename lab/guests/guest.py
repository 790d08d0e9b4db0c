"""A guest: machine, channel and OS family in one hand; what a check holds."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Mapping
from pathlib import PurePath, PurePosixPath
from typing import TYPE_CHECKING, Protocol

from lab import log as lab_log
from lab import waiting
from lab.contracts import Cell, Channel, CommandResult, Endpoint, Hypervisor, Machine, MachineState
from lab.errors import (
    CommandTimedOut,
    ConfigurationError,
    GuestCommandFailed,
    GuestLoginRefused,
    GuestRebooted,
    GuestUnreachable,
    WaitedTooLong,
)
from lab.guests import claims, triage
from lab.guests.facts import Facts
from lab.guests.families import linux
from lab.ssh._dial import Answer, probe

if TYPE_CHECKING:
    from testinfra.host import Host as Inspector

log = lab_log.get(__name__)

_SHOWN = 400
# A connection that was begun while the guest was down stays silent, so the first looks are short; a busy emulated
# guest needs many seconds to start a server for a connection, and who hangs up early keeps it from ever greeting.
_FIRST_PROBE_S, _LONGEST_PROBE_S = 2.0, 25.0
_LOGIN_S = 30.0


class LastingChannel(Channel, Protocol):
    """A channel that can be opened anew after the guest was away."""

    @property
    def endpoint(self) -> Endpoint: ...

    def reconnect(self, timeout_s: float, *, endpoint: Endpoint | None = None) -> None: ...


class Family(Protocol):
    """What a module in `lab/guests/families/` knows."""

    REBOOT: tuple[str, ...]
    POWER_OFF: tuple[str, ...]

    def gather(self, channel: Channel, *, timeout_s: float = ...) -> Facts: ...

    def boot_id(self, channel: Channel, *, timeout_s: float = ...) -> str: ...


_FAMILIES: Mapping[str, Family] = {"linux": linux}


class Guest:
    """One guest that answers."""

    def __init__(
        self, *, cell: Cell, hypervisor: Hypervisor, machine: Machine, channel: LastingChannel, family: str
    ) -> None:
        if family not in _FAMILIES:
            raise ConfigurationError(f"no family {family!r}", hint=f"known: {', '.join(_FAMILIES)}")
        self.cell = cell
        self.hypervisor = hypervisor
        self.machine = machine
        self.channel = channel
        self.family = family
        self._commands = _FAMILIES[family]
        self._facts: Facts | None = None
        self._boot_id: str | None = None
        self._inspector: Inspector | None = None

    def __repr__(self) -> str:
        return f"<Guest {self.cell}>"

    def run(self, *argv: str, stdin: bytes = b"", timeout_s: float = 60.0) -> CommandResult:
        """Run a command; its status is for you to look at. Raises `CommandTimedOut`, `GuestUnreachable`."""
        return self.channel.run(argv, stdin=stdin, timeout_s=timeout_s)

    def check(self, *argv: str, stdin: bytes = b"", timeout_s: float = 60.0) -> str:
        """Run a command that must succeed; return its standard output as text without the last newline.

        Raises `GuestCommandFailed`, `CommandTimedOut`, `GuestUnreachable`.
        """
        result = self.run(*argv, stdin=stdin, timeout_s=timeout_s)
        if result.status != 0:
            said = (result.err or result.out)[-_SHOWN:]
            raise GuestCommandFailed(f"{shlex.join(argv)[:300]} ended with status {result.status}: {said!r}")
        return result.out

    def stream(self, *argv: str, timeout_s: float = 60.0, limit_bytes: int = 1 << 20) -> Iterator[bytes]:
        """Yield a command's standard output as it comes; closing the iterator ends the command."""
        return self.channel.stream(argv, timeout_s=timeout_s, limit_bytes=limit_bytes)

    def read(self, path: str | PurePath, *, limit_bytes: int = 16 << 20) -> bytes:
        """A file's content. Raises `GuestCommandFailed` when it cannot be read or is larger than the limit."""
        return self.channel.read(PurePosixPath(path), limit_bytes=limit_bytes)

    def write(self, path: str | PurePath, data: bytes, *, mode: int = 0o644) -> None:
        """Put a file there whole or not at all. Raises `GuestCommandFailed`."""
        self.channel.write(PurePosixPath(path), data, mode=mode)

    @property
    def facts(self) -> Facts:
        """What the guest says about itself, gathered once per boot, in one round trip."""
        if self._facts is None:
            self._facts = self._commands.gather(self.channel)
            self._boot_id = self._boot_id or self._facts.boot_id or None
        return self._facts

    @property
    def inspect(self) -> Inspector:
        """A pytest-testinfra host over the same channel: `guest.inspect.file("/etc/passwd").mode`."""
        if self._inspector is None:
            from lab.guests import inspect

            self._inspector = inspect.over(self.channel, self.cell.name)
        return self._inspector

    @property
    def boot_id(self) -> str:
        """The kernel's random id of the boot that runs now; asked anew each time."""
        return self._commands.boot_id(self.channel)

    def assert_same_boot(self) -> None:
        """Raise `GuestRebooted` when the guest restarted since this was last asked, without `reboot`."""
        known, now = self._boot_id, self.boot_id
        self._boot_id = now
        if known is not None and known != now:
            self._forget()
            self._boot_id = now
            raise GuestRebooted(
                f"{self.cell}: the guest rebooted by itself: its boot id was {known}, now it is {now}",
                hint="the console log shows what came before",
            )

    def reboot(self, *, timeout_s: float = 300.0) -> None:
        """Ask the guest to restart; return when it answers with a new boot id.

        Raises what its console and its network prove: `GuestPanicked`, `RootMissing`, `GuestHung`,
        `GuestHasNoNetwork` and so on; `HostKeyChanged` when it comes back as somebody else.
        """
        before = self.boot_id
        seen = len(self.machine.console())
        started = time.monotonic()
        self._ask(self._commands.REBOOT)
        self._forget()
        watch = _ComingBack(self, before, seen, started + timeout_s)
        try:
            self._boot_id = waiting.until(watch.new_boot_id, what=f"{self.cell} to reboot", timeout_s=timeout_s)
        except WaitedTooLong:
            raise watch.error(timeout_s) from None
        log.info("guest.rebooted", cell=self.cell, seconds=time.monotonic() - started)

    def power_off(self) -> None:
        """Ask the guest to switch itself off; returns at once, watch `machine.state()`."""
        self._ask(self._commands.POWER_OFF)

    def reconnect(self, *, timeout_s: float = 60.0, endpoint: Endpoint | None = None) -> None:
        """Open the channel anew after the machine was restored or reset; forgets what was known of the boot."""
        self._forget()
        self.channel.reconnect(timeout_s, endpoint=endpoint)

    def close(self) -> None:
        """Close the channel; the guest runs on."""
        self.channel.close()

    def _ask(self, argv: tuple[str, ...]) -> None:
        try:
            result = self.channel.run(argv, timeout_s=20.0)
        except (GuestUnreachable, CommandTimedOut, GuestCommandFailed) as reason:
            # The way down may cut the connection, or end the shell, before the command's status comes.
            log.debug("guest.going-down", cell=self.cell, reason=reason)
            return
        if result.status != 0:
            raise GuestCommandFailed(f"{shlex.join(argv)} ended with status {result.status}: {result.err[-_SHOWN:]!r}")

    def _forget(self) -> None:
        self._facts = None
        self._boot_id = None
        self._inspector = None


class _ComingBack:
    """Looks for a guest that was told to restart."""

    def __init__(self, guest: Guest, before: str, seen_bytes: int, deadline: float) -> None:
        self._guest = guest
        self._before = before
        self._seen_bytes = seen_bytes
        self._deadline = deadline
        self._answer = Answer.SILENT
        self._probe_s = _FIRST_PROBE_S
        self._same = False
        self._crashed = False
        self._seen = b""
        self._begun = self._changed = time.monotonic()

    def new_boot_id(self) -> str | None:
        guest = self._guest
        console = self._console()
        if console != self._seen:
            self._seen, self._changed = console, time.monotonic()
        silent_s = time.monotonic() - self._changed
        found = triage.triage(console)
        self._crashed = guest.machine.state() is MachineState.CRASHED
        if not found.booted and claims.is_certain(found, crashed=self._crashed, silent_s=silent_s, answer=self._answer):
            raise self.error(time.monotonic() - self._begun)
        left_s = max(1.0, self._deadline - time.monotonic())
        self._answer = probe(guest.channel.endpoint, timeout_s=min(self._probe_s, left_s))
        if self._answer is Answer.SILENT:
            self._probe_s = min(self._probe_s * 1.5, _LONGEST_PROBE_S)
        if self._answer is not Answer.BANNER:
            return None
        try:
            guest.channel.reconnect(max(1.0, min(_LOGIN_S, self._deadline - time.monotonic())))
            now = guest.boot_id
        except (GuestUnreachable, GuestLoginRefused, CommandTimedOut, GuestCommandFailed) as reason:
            # An SSH server of the boot that goes down may still greet, and refuse because its files are gone.
            log.debug("guest.not-yet", cell=guest.cell, reason=reason)
            return None
        self._same = now == self._before
        return None if self._same else now

    def error(self, waited_s: float) -> Exception:
        if self._same:
            return GuestCommandFailed(
                f"{self._guest.cell}: the guest was told to reboot and did not within {waited_s:.0f} s",
                hint="its boot id is still the old one: what keeps it from going down?",
            )
        console = self._console()
        found = claims.weighed(triage.triage(console), crashed=self._crashed, answer=self._answer)
        return triage.error_for(found, self._answer, console, waited_s=waited_s, guest=str(self._guest.cell))

    def _console(self) -> bytes:
        console = self._guest.machine.console()
        # A bounded console drops its middle; then all that is left is looked at.
        return console[self._seen_bytes :] if len(console) >= self._seen_bytes else console
