"""The one SSH connection to a dom0: programs run over it, guests are reached through it; what is lost is the host's."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from lab import log
from lab.contracts import CommandResult, Endpoint
from lab.errors import (
    CommandTimedOut,
    GuestCommandFailed,
    GuestError,
    GuestLoginRefused,
    GuestUnreachable,
    HostError,
    HostKeyChanged,
    HypervisorRefused,
)
from lab.hypervisors._xen_dom0 import Dom0
from lab.hypervisors._xen_relay import Relay
from lab.ssh._pump import Pump
from lab.ssh._tunnel import Tunnel
from lab.ssh.channel import SshChannel, connect

_log = log.get(__name__)

_TUNNEL_S = 15.0
SHORT_S = 60.0  # for what a toolstack does at once, on a busy machine under emulation


class Link:
    """A connection that is made when it is needed, kept, and made anew after it was lost."""

    def __init__(self, host: str, dom0: Dom0) -> None:
        self.host, self.dom0 = host, dom0
        self.present: set[str] = set()  # files of images that were seen there: they are never changed
        self._channel: SshChannel | None = None
        self._relays: dict[Endpoint, Relay] = {}
        self._forwards: dict[Endpoint, Endpoint] = {}  # of a made host: a guest's port, and where it is here
        self._lock = threading.RLock()

    def open(self) -> None:
        """Connect unless connected. Raises `HostError`, `MachineVanished` when a made host is gone."""
        self._connected()

    def close(self) -> None:
        """Safe to call twice."""
        with self._lock:
            for relay in self._relays.values():
                relay.close()
            self._relays.clear()
            if self._channel is not None:
                self._channel.close()
            self._channel = None

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = SHORT_S) -> CommandResult:
        """Run a program of the dom0 to its end.

        Raises `HostError` when the dom0 is lost meanwhile, `HypervisorRefused` when the program does not end.
        """
        channel = self._connected()
        try:
            return channel.run(argv, stdin=stdin, timeout_s=timeout_s)
        except CommandTimedOut as reason:
            raise HypervisorRefused(
                f"{self.host}: {_shown(argv)} did not end within {timeout_s:.0f} s",
                hint="in the dom0, look whether xenstored runs, at xl dmesg and at /var/log/xen",
            ) from reason
        except GuestCommandFailed as reason:
            raise HostError(f"{self.host}: the dom0's shell ended during {_shown(argv)}") from reason
        except GuestUnreachable as reason:
            self._forget(channel)
            raise self._lost(f"during {_shown(argv)}") from reason

    def sh(self, script: str, *args: str, stdin: bytes = b"", timeout_s: float = SHORT_S) -> CommandResult:
        """Run a script of the driver's own in the dom0; values go in as its arguments, never into its text."""
        return self.run(("/bin/sh", "-c", script, "sh", *args), stdin=stdin, timeout_s=timeout_s)

    def program(self, argv: Sequence[str], *, timeout_s: float) -> Pump:
        """Start a program of the dom0; the caller feeds it, and closes it. Raises `HostError`."""
        channel = self._connected()
        try:
            return channel.program(argv, timeout_s=timeout_s)
        except GuestUnreachable as reason:
            self._forget(channel)
            raise self._lost(f"while starting {_shown(argv)}") from reason

    def tunnel(self, port: int) -> Tunnel:
        """A connection to a port of the dom0 itself; the caller closes it. Raises `HostError`, `HypervisorRefused`."""
        channel = self._connected()
        try:
            return channel.tunnel(Endpoint("127.0.0.1", port), timeout_s=_TUNNEL_S)
        except ConnectionError as reason:
            raise HypervisorRefused(f"{self.host}: port {port} of the dom0: {reason}") from reason
        except GuestUnreachable as reason:
            self._forget(channel)
            raise self._lost(f"while connecting to its port {port}") from reason

    def reach(self, address: str, port: int) -> Endpoint:
        """Where on this machine a TCP port of a guest is. Raises `HostError`, `HypervisorRefused`."""
        far = Endpoint(address, port)
        if self.dom0.maker is not None:
            self._forwards[far] = self.dom0.maker.forward(address, port)
            return self._forwards[far]
        with self._lock:
            if far not in self._relays:
                try:
                    self._relays[far] = Relay(far, self._tunnel)
                except OSError as reason:
                    raise HostError(f"{self.host}: no port of this machine is free: {reason}") from reason
            return self._relays[far].endpoint

    def hand_over(self, address: str, other: Link) -> None:
        """Lead what led to a guest to the same address behind another dom0; its ports here stay.

        Raises `HypervisorRefused`, `MachineVanished`.
        """
        ports = {far: here for far, here in self._forwards.items() if far.host == address}
        if self.dom0.maker is not None and other.dom0.maker is not None:
            self.dom0.maker.unforward(address)
            for far, here in ports.items():
                other._forwards[far] = other.dom0.maker.forward(far.host, far.port, here=here.port)
                del self._forwards[far]
        with self._lock:
            relays = {far: self._relays.pop(far) for far in [one for one in self._relays if one.host == address]}
        for relay in relays.values():
            relay.lead_through(other._tunnel)
        with other._lock:
            other._relays |= relays

    def forget(self, address: str) -> None:
        """Close what leads to a guest. Safe to call twice."""
        if self.dom0.maker is not None:
            self.dom0.maker.unforward(address)
            for far in [one for one in self._forwards if one.host == address]:
                del self._forwards[far]
        with self._lock:
            for far in [one for one in self._relays if one.host == address]:
                self._relays.pop(far).close()

    def _tunnel(self, far: Endpoint) -> Tunnel:
        return self._connected().tunnel(far, timeout_s=_TUNNEL_S)

    def _connected(self) -> SshChannel:
        with self._lock:
            if self._channel is not None and self._channel.is_connected():
                return self._channel
            try:
                self._channel = connect(self.dom0.endpoint, self.dom0.login, timeout_s=self.dom0.answers_within_s)
            except (HostKeyChanged, GuestLoginRefused) as reason:
                raise HostError(
                    f"{self.host}: {reason.what.replace('the guest', 'the dom0')}",
                    hint="compare the host key and the login in the inventory with the dom0",
                ) from reason
            except GuestError as reason:
                raise self._lost(f"while connecting ({reason.what})") from reason
            _log.info("xen.connected", host=self.host)
            return self._channel

    def _forget(self, channel: SshChannel) -> None:
        channel.close()
        with self._lock:
            if self._channel is channel:
                self._channel = None

    def _lost(self, when: str) -> HostError:
        if self.dom0.maker is not None:
            self.dom0.maker.require_alive()
        where = f"{self.dom0.endpoint.host}:{self.dom0.endpoint.port}"
        return HostError(
            f"{self.host}: the dom0 at {where} was lost {when}",
            hint="the guests of a dom0 that only lost its network run on; look at its console",
        )


def said(result: CommandResult) -> str:
    """What a program of the dom0 complained of, for a message."""
    return shown(result.err.strip() or result.out.strip())


def shown(text: str) -> str:
    """What a program said, on one line, the end of it."""
    lines = ["".join(c if c.isprintable() else "?" for c in line).strip() for line in text.splitlines()]
    told = " | ".join(line for line in lines if line)
    return told if len(told) <= 600 else "..." + told[-600:]


def _shown(argv: Sequence[str]) -> str:
    """The program and what it was asked to do; of a script only that it is one."""
    if argv[:2] == ("/bin/sh", "-c"):
        first = argv[2].strip().splitlines()[0]
        return f"{first.removeprefix('# ')!r}" if first.startswith("# ") else "a script of the lab"
    return repr(" ".join(argv))[:200]
