"""What drivers, channels and executors promise, and the values they exchange. Read this first.

A value is a frozen dataclass, behaviour is a `Protocol`. A driver *has* a capability when the methods are
there; a host may still refuse it in `limits()` with the sentence that the report shows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path, PurePath
from typing import Any, Protocol, runtime_checkable

from lab.errors import ConfigurationError

NAME_PATTERN = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,62}[a-z0-9])?")


class Realness(StrEnum):
    """What stood behind a record; never mixed on a page or in a certificate."""

    REAL = "real"  # the hypervisor itself ran the guest
    EMULATED = "emulated"  # the real hypervisor ran on an emulated CPU
    SIMULATED = "simulated"  # a control plane without the real hypervisor behind it


class Capability(StrEnum):
    """What a machine or a hypervisor may be able to do beyond the required methods."""

    SNAPSHOTS = "snapshots"
    WARM_CLONES = "warm-clones"
    PAUSES = "pauses"
    NMI = "nmi"
    SCREENSHOTS = "screenshots"
    BALLOON = "balloon"
    DISK_HOTPLUG = "disk-hotplug"
    DISK_RESIZE = "disk-resize"
    NIC_HOTPLUG = "nic-hotplug"


class MachineState(StrEnum):
    """The power state of a machine as its hypervisor tells it."""

    STOPPED = "stopped"
    RUNNING = "running"
    PAUSED = "paused"
    CRASHED = "crashed"  # the guest told the hypervisor that it panicked
    GONE = "gone"  # destroyed, or its process ended without being asked


# ---------------------------------------------------------------------------------------------------------
# Values


@dataclass(frozen=True, order=True)
class Cell:
    """One square of the matrix: host x guest x profile; printed `host/guest/profile`."""

    host: str
    guest: str
    profile: str

    @property
    def name(self) -> str:
        return f"{self.host}/{self.guest}/{self.profile}"

    def __str__(self) -> str:
        return self.name

    @staticmethod
    def parse(name: str) -> Cell:
        """The cell of a printed name. Raises `ConfigurationError`."""
        parts = name.split("/")
        if len(parts) != 3 or not all(NAME_PATTERN.fullmatch(part) for part in parts):
            raise ConfigurationError(f"{name!r} is not a cell", hint="a cell is written HOST/GUEST/PROFILE")
        return Cell(*parts)


@dataclass(frozen=True)
class SshLogin:
    """How to log in to a guest over SSH. The host key is pinned: there is no trust on first use."""

    user: str
    private_key: Path
    host_key: str  # "ssh-ed25519 AAAA...", the public line that the lab gave to this guest


class Firmware(StrEnum):
    """What runs before the boot loader or the kernel."""

    BIOS = "bios"
    UEFI = "uefi"
    NONE = "none"  # paravirtual: the hypervisor starts the kernel itself (User-Mode Linux, Xen PV)


@dataclass(frozen=True)
class Profile:
    """Named virtual hardware, independent of the hypervisor that makes it."""

    name: str
    firmware: Firmware
    chipset: str  # "pc", "q35", "microvm", "none"
    disk: str  # model of the root disk: "virtio", "sata", "nvme", "pvscsi", "ubd"
    nic: str  # model of the network card: "virtio", "e1000e", "vmxnet3", "vector"
    vcpus: int
    memory_mib: int


@dataclass(frozen=True)
class Image:
    """A disk (or kernel and root) on this machine to start from; never written to.

    `digest` ("sha256:<64 hex>") covers disk, kernel, initrd and arguments: equal digest, equal guest.
    Without `kernel` the machine boots from the disk through its firmware.
    """

    name: str
    digest: str
    disk: Path
    disk_format: str  # "raw" or "qcow2"
    kernel: Path | None = None
    initrd: Path | None = None
    kernel_arguments: str = ""  # without root= and console=, which the driver adds because it knows the bus
    arch: str = "x86_64"
    origin: str = ""  # one sentence for the report: recipe and snapshot, URL, file or package


@dataclass(frozen=True)
class Owner:
    """The owner mark: which run made a machine. `reap` trusts nothing else."""

    run: str
    cell: str
    pid: int  # the controller's process, and
    pid_started: int  # its start time (`lab.process.start_time`), so that a reused id is not mistaken


@dataclass(frozen=True)
class MachineSpec:
    """Everything a driver needs to make one machine."""

    name: str
    owner: Owner
    image: Image
    profile: Profile
    seed: Path | None = None  # a raw disk, attached read-only as the second disk
    data_disk_mib: int = 0  # an empty third disk to test with; 0 for none


@dataclass(frozen=True)
class Endpoint:
    """Where the controller reaches a TCP port of a guest."""

    host: str
    port: int


@dataclass(frozen=True)
class HostFacts:
    """What a connected host is."""

    product: str  # "QEMU", "User-Mode Linux", "VMware ESXi" ...
    version: str
    build: str
    realness: Realness
    accelerator: str = ""  # "tcg", "kvm", "" where the word means nothing
    cpu_model: str = ""  # of the guests, where the driver chooses it
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CommandResult:
    """What a command in a guest left. A non-zero exit is a result, not an error."""

    argv: tuple[str, ...]
    status: int
    stdout: bytes
    stderr: bytes
    seconds: float
    truncated: bool = False  # output went over the channel's bound; the rest was thrown away

    @property
    def out(self) -> str:
        """Standard output as text, without the last newline, undecodable bytes replaced."""
        return self.stdout.decode(errors="replace").rstrip("\n")

    @property
    def err(self) -> str:
        return self.stderr.decode(errors="replace").rstrip("\n")


# ---------------------------------------------------------------------------------------------------------
# Behaviour that every driver has


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


# ---------------------------------------------------------------------------------------------------------
# Capabilities: each a Protocol of its own with a member of `Capability`


@runtime_checkable
class Snapshots(Protocol):
    """Of a machine: what it was can be had back."""

    def snapshot(self, name: str) -> None:
        """Keep disk, and memory where the hypervisor can; the machine goes on as it was."""

    def restore(self, name: str) -> None:
        """Go back to a kept state; connections into the guest are lost. Raises `HypervisorRefused`."""

    def delete_snapshot(self, name: str) -> None: ...

    def snapshots(self) -> Sequence[str]: ...

    def snapshots_hold_memory(self) -> bool:
        """Whether a restored machine goes on where it was (true) or boots from the kept disk (false)."""


@runtime_checkable
class ClonesWarm(Protocol):
    """Of a hypervisor: a machine that booted once is saved, later ones start from a copy."""

    def warm_key(self, spec: MachineSpec) -> str:
        """Digest of all that a saved machine depends on: image, profile, driver, hypervisor version, CPU model."""

    def has_warm(self, key: str) -> bool: ...

    def save_warm(self, key: str, machine: Machine, identity: bytes) -> None:
        """Save a running machine under `key`; it goes on as it was. `identity` is kept beside the copy.

        Two processes that save the same key at once both succeed, one copy stays. A save that is
        interrupted leaves nothing that `has_warm` would believe.
        """

    def warm_identity(self, key: str) -> bytes:
        """What `save_warm` was given."""

    def clone_warm(self, key: str, spec: MachineSpec) -> Machine:
        """Make a running machine from the saved one. Raises `HypervisorRefused` when the copy is unusable."""

    def forget_warm(self, key: str) -> None: ...


@runtime_checkable
class Pauses(Protocol):
    """Of a machine: its processors stand still and go on."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...


@runtime_checkable
class InjectsNmi(Protocol):
    """Of a machine: a non-maskable interrupt to every processor."""

    def inject_nmi(self) -> None: ...


@runtime_checkable
class TakesScreenshots(Protocol):
    """Of a machine: what its display shows."""

    def screenshot(self) -> bytes:
        """A PNG file."""


@runtime_checkable
class Balloons(Protocol):
    """Of a machine: the host takes memory from the running guest and gives it back."""

    def set_balloon(self, memory_mib: int) -> None:
        """Ask the guest to keep that much; returns at once."""

    def balloon_mib(self) -> int:
        """How much the guest has now, as the hypervisor sees it."""


@runtime_checkable
class HotplugsDisks(Protocol):
    """Of a machine: disks come and go while it runs."""

    def attach_disk(self, name: str, size_mib: int) -> None:
        """Attach a new empty disk whose serial number is `name`."""

    def detach_disk(self, name: str) -> None:
        """Take it away and delete it; returns when the guest let go of it."""


@runtime_checkable
class ResizesDisks(Protocol):
    """Of a machine: a disk grows while it runs."""

    def resize_data_disk(self, size_mib: int) -> None: ...

    def data_disk_used_bytes(self) -> int:
        """How much of the host's storage the data disk occupies (what discard gives back)."""


@runtime_checkable
class HotplugsNics(Protocol):
    """Of a machine: network cards come and go while it runs."""

    def attach_nic(self, name: str, mac: str) -> None: ...

    def detach_nic(self, name: str) -> None: ...


@runtime_checkable
class CountsResets(Protocol):
    """Of a machine: a guest that reboots by itself is noticed."""

    def resets(self) -> int:
        """How often the guest reset itself since the machine was started."""


CAPABILITY_PROTOCOLS: Mapping[Capability, type] = {
    Capability.SNAPSHOTS: Snapshots,
    Capability.WARM_CLONES: ClonesWarm,
    Capability.PAUSES: Pauses,
    Capability.NMI: InjectsNmi,
    Capability.SCREENSHOTS: TakesScreenshots,
    Capability.BALLOON: Balloons,
    Capability.DISK_HOTPLUG: HotplugsDisks,
    Capability.DISK_RESIZE: ResizesDisks,
    Capability.NIC_HOTPLUG: HotplugsNics,
}


# ---------------------------------------------------------------------------------------------------------
# Channels


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
