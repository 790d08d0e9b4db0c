"""The values that drivers, guests, runner and results exchange: frozen dataclasses and their words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

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
    SHARED_NETWORKS = "shared-networks"
    CPU_HOTPLUG = "cpu-hotplug"
    MEMORY_HOTPLUG = "memory-hotplug"
    SAVED_STATE = "saved-state"
    LIVE_MIGRATION = "live-migration"
    COLD_MIGRATION = "cold-migration"
    SERIAL_INPUT = "serial-input"
    WATCHDOG = "watchdog"
    TPM = "tpm"
    SECURE_BOOT = "secure-boot"
    NETWORK_BOOT = "network-boot"
    GUEST_COMMANDS = "guest-commands"
    GUEST_FILES = "guest-files"
    GUEST_ADDRESSES = "guest-addresses"
    FILESYSTEM_FREEZE = "filesystem-freeze"
    VSOCK = "vsock"
    KEY_VALUES = "key-values"
    MEMORY_DUMP = "memory-dump"
    SYSRQ = "sysrq"


class MachineState(StrEnum):
    """The power state of a machine as its hypervisor tells it."""

    STOPPED = "stopped"
    RUNNING = "running"
    PAUSED = "paused"
    CRASHED = "crashed"  # the guest told the hypervisor that it panicked
    GONE = "gone"  # destroyed, or its process ended without being asked


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
    chipset: str  # "pc", "q35", "microvm", "none", "xenpv", "xenpvh", "xenhvm"
    disk: str  # model of the root disk: "virtio", "sata", "nvme", "pvscsi", "ubd", "xen"
    nic: str  # model of the network card: "virtio", "e1000e", "vmxnet3", "vector", "xen"
    vcpus: int
    memory_mib: int
    max_vcpus: int = 0  # processors that may be plugged in up to this number; 0: none beyond `vcpus`
    max_memory_mib: int = 0  # memory that may be plugged in up to this size; 0: none beyond `memory_mib`
    tpm: bool = False  # a TPM 2.0
    secure_boot: bool = False  # the firmware starts what is signed by a key that it holds, and nothing else


@dataclass(frozen=True)
class Image:
    """A disk (or kernel and root) on this machine to start from; never written to.

    `digest` ("sha256:<64 hex>") covers disk, kernel, initrd, hypervisor and arguments: equal digest, equal guest.
    Without `kernel` the machine boots from the disk through its firmware.
    """

    name: str
    digest: str
    disk: Path
    disk_format: str  # "raw" or "qcow2"
    kernel: Path | None = None
    initrd: Path | None = None
    hypervisor: Path | None = None  # what is started before the kernel, of an image that is a host (Xen)
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
class Migration:
    """What a migration took, as the hypervisor tells it."""

    seconds: float
    downtime_ms: float  # how long the processors stood still; of a machine that did not run, all the time
    transferred_bytes: int


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
