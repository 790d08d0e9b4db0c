"""A host that is reached over SSH, as a driver gets it: where to log in, and what its maker can do that SSH cannot.

A host that somebody set up has no maker; one that the lab made on this machine has. Whoever makes hosts hands a
`ReachedHost` to the driver's `connect_made`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lab.contracts import Endpoint, Realness, SshLogin


class Maker(Protocol):
    """What made a host on this machine and can reach below it. Every method is safe to call twice."""

    def forward(self, address: str, port: int, *, here: int = 0) -> Endpoint:
        """Where on this machine a TCP port of a guest at that address of the host's bridge is; made when it is not.

        `here` is the port of this machine that it shall be; 0: any. Raises `HypervisorRefused`, `MachineVanished`.
        """

    def unforward(self, address: str) -> None:
        """Close every port that leads to that address."""

    def lend(self, file: Path, disk_format: str) -> str:
        """Path in the host of a read-only block device with the content of a disk image of this machine.

        Much faster than copying over SSH; the same file is lent once. `disk_format` is "raw" or "qcow2"; any file is
        a raw disk, its size rounded up to 512 bytes. Raises `HypervisorRefused`, `MachineVanished`, `ImageError`.
        """

    def keep(self, file: Path) -> str:
        """Path in the host of a regular file with that content, for programs that read no block device.

        Raises `HypervisorRefused`, `MachineVanished`, `ImageError`, `WaitedTooLong`.
        """

    def take_back(self, file: Path) -> None:
        """End a loan; no guest may use the device any more. Raises `HypervisorRefused` when the host keeps it."""

    def console(self) -> bytes:
        """What the host wrote to its serial line; bounded."""

    def require_alive(self) -> None:
        """Raises `MachineVanished` with the emulator's last words when the host is gone."""


@dataclass(frozen=True)
class ReachedHost:
    """One host that answers SSH; `login.user` may use its toolstack."""

    endpoint: Endpoint
    login: SshLogin
    realness: Realness = Realness.REAL
    maker: Maker | None = None  # None: guests are reached through the host, and files are copied
    answers_within_s: float = 60.0  # its SSH server, on a busy machine

    # Of a made host, whose bridge the lab knows; empty: the driver's settings say.
    bridge: str = ""
    guest_addresses: tuple[str, ...] = ()  # that guests may take, without the host's own
    guest_prefix: int = 24
    gateway: str = ""
    proof: str = ""  # of a made host: how it is known that its hypervisor runs guests
