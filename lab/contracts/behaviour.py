"""What every driver, machine and channel does: Protocols; their docstrings are the promises."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import PurePath
from typing import Any, Protocol, runtime_checkable

from lab.contracts.values import (
    Capability,
    CommandResult,
    Endpoint,
    HostFacts,
    Image,
    MachineSpec,
    MachineState,
    Owner,
    Profile,
    Realness,
)


@runtime_checkable
class Machine(Protocol):
    """A virtual machine seen from outside. Every method is safe to call twice."""

    @property
    def name(self) -> str: ...

    @property
    def spec(self) -> MachineSpec: ...

    def state(self) -> MachineState: ...

    def start(self) -> None:
        """Power on; returns when the hypervisor runs the machine, not when the guest is up."""

    def stop(self, *, force: bool = False, timeout_s: float = 60.0) -> None:
        """Ask the guest to shut down and wait; with `force`, cut the power.

        Raises `WaitedTooLong` when the guest ignores the request.
        """

    def addresses(self) -> Sequence[str]:
        """IP addresses of the guest as the hypervisor knows them now; empty when stopped or unknown."""

    def endpoint(self, guest_port: int) -> Endpoint:
        """Where to connect to reach that TCP port of the guest. Raises `HypervisorRefused` when stopped."""

    def console(self) -> bytes:
        """The console log of all boots so far; bounded: of an endless one the beginning and the end."""

    def reproduce(self) -> str:
        """The commands with which a person makes the same machine by hand, for the evidence page."""

    def destroy(self) -> None:
        """Cut the power and remove every trace of the machine but the image."""


@runtime_checkable
class Hypervisor(Protocol):
    """A connected host."""

    @property
    def name(self) -> str: ...

    def facts(self) -> HostFacts: ...

    def limits(self) -> Mapping[Capability, str]:
        """What this host cannot do although its driver could: the sentence that the report shows."""

    def upload(self, image: Image) -> None:
        """Bring an image to the host, once per digest."""

    def create(self, spec: MachineSpec) -> Machine:
        """Make a machine; it is stopped. Raises `HypervisorRefused`, `LabDiskFull`, `LabBusy`."""

    def machines(self) -> Sequence[tuple[Owner, Machine]]:
        """The machines that bear the lab's owner mark on this host, those of dead runs too."""


class Driver(Protocol):
    """A module in `lab/hypervisors/`; its file name is the `driver:` of an inventory."""

    Settings: type[Any]  # a frozen pydantic model of the host's `lab_*` variables, without that prefix
    RUNS_HERE: bool  # its machines take processors and memory of the machine that the lab runs on
    REALNESS: Realness  # what a host of this driver is unless its inventory says `lab_realness`

    def connect(self, name: str, settings: Any) -> AbstractContextManager[Hypervisor]:
        """Connect to the host called `name`. Raises `HostError`, `MissingTool`, `MissingExtra`."""

    def refuses(self, profile: Profile) -> str | None:
        """Why no host of this driver can make that hardware, or `None`; asked while planning, offline."""


class Channel(Protocol):
    """A way into a guest. argv goes in; the channel quotes for the shell at the other end."""

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = 60.0) -> CommandResult:
        """Run to the end. Output is bounded (`truncated`).

        Raises `CommandTimedOut`, `GuestUnreachable`.
        """

    def stream(self, argv: Sequence[str], *, timeout_s: float = 60.0, limit_bytes: int = 1 << 20) -> Iterator[bytes]:
        """Yield standard output as it comes, at most `limit_bytes` of it; closing the iterator ends the command."""

    def read(self, path: PurePath, *, limit_bytes: int = 16 << 20) -> bytes:
        """A file's content. Raises `GuestCommandFailed` when it cannot be read or is larger than the limit."""

    def write(self, path: PurePath, data: bytes, *, mode: int = 0o644) -> None:
        """Put a file there whole or not at all. Raises `GuestCommandFailed`."""

    def close(self) -> None: ...
