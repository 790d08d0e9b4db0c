"""A dom0 as the `xen` driver gets it: where to log in, and what the maker of a host can do that SSH cannot.

A dom0 that somebody else set up has no maker; one that the lab made on this machine has. Whoever makes Xen hosts
hands a `Dom0` to `xen.connect_to`; `xen.connect` makes one of its settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lab.contracts import Endpoint, Realness, SshLogin


class Maker(Protocol):
    """What made a Xen host on this machine and can reach below it. Every method is safe to call twice."""

    def forward(self, address: str, port: int) -> Endpoint:
        """Where on this machine a TCP port of a guest at that address of the dom0's bridge is; made when it is not.

        Raises `HypervisorRefused`, `MachineVanished`.
        """

    def unforward(self, address: str) -> None:
        """Close every port that leads to that address."""

    def lend(self, file: Path, disk_format: str) -> str:
        """Path in the dom0 of a read-only block device with the content of a disk image of this machine.

        Much faster than copying over SSH; the same file is lent once. `disk_format` is "raw" or "qcow2"; any file is
        a raw disk, its size rounded up to 512 bytes. Raises `HypervisorRefused`, `MachineVanished`, `ImageError`.
        """

    def take_back(self, file: Path) -> None:
        """End a loan; no guest may use the device any more. Raises `HypervisorRefused` when the dom0 keeps it."""

    def console(self) -> bytes:
        """What Xen and the dom0 wrote to their serial line; bounded."""

    def require_alive(self) -> None:
        """Raises `MachineVanished` with the emulator's last words when the host is gone."""


@dataclass(frozen=True)
class Dom0:
    """One Xen host that answers SSH; `login.user` may run `xl`."""

    endpoint: Endpoint
    login: SshLogin
    realness: Realness = Realness.REAL
    maker: Maker | None = None  # None: guests are reached through the dom0, and files are copied

    # Of a made host, whose bridge the lab knows; empty: the driver's settings say.
    bridge: str = ""
    guest_addresses: tuple[str, ...] = ()  # that guests may take, without the dom0's own
    guest_prefix: int = 24
    gateway: str = ""
