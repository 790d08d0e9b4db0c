"""What a guest says about itself: the facts that reports show and checks compare."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class OsFacts:
    """Which operating system, from os-release(5)."""

    id: str = ""  # "debian", "alpine", "sles" ...
    name: str = ""  # for people
    version: str = ""
    init: str = ""  # name of process 1: "systemd", "init" ...


@dataclass(frozen=True)
class KernelFacts:
    """The running kernel."""

    release: str = ""
    version: str = ""
    arch: str = ""  # as uname -m says it
    arguments: str = ""
    taint: int | None = None  # a bit set, see the kernel's documentation on tainted kernels
    modules: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClockFacts:
    """How the guest tells the time."""

    source: str = ""
    sources: tuple[str, ...] = ()  # that it could use
    seconds: int | None = None  # since 1970, when the facts were gathered
    uptime_s: float | None = None
    rtc_seconds: int | None = None  # of the first hardware clock


@dataclass(frozen=True)
class CpuFacts:
    """The processors that are online."""

    count: int | None = None
    model: str = ""
    vendor: str = ""
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class BlockDevice:
    """A disk."""

    name: str  # "vda"
    size_bytes: int | None = None
    driver: str = ""  # of the device that carries it: "virtio_blk", "nvme", "vmw_pvscsi", "ahci" ...
    model: str = ""
    serial: str = ""
    read_only: bool = False
    rotational: bool | None = None


@dataclass(frozen=True)
class Nic:
    """A network card; `lo` and interfaces without hardware are left out."""

    name: str
    driver: str = ""
    mac: str = ""
    mtu: int | None = None
    up: bool | None = None  # the link, not the administrator's wish
    speed_mbit: int | None = None
    addresses: tuple[str, ...] = ()  # with their prefix length


@dataclass(frozen=True)
class Mount:
    """A mounted file system."""

    path: str
    device: str
    type: str
    options: str


@dataclass(frozen=True)
class VirtualizationFacts:
    """What the guest notices of the hypervisor below it."""

    hypervisor: str = ""  # the kernel's own word from its log or /sys/hypervisor: "KVM", "VMware", "xen" ...
    dmi: tuple[tuple[str, str], ...] = ()  # firmware tables: ("sys_vendor", "QEMU") ...
    hints: tuple[str, ...] = ()  # lines of the kernel log, bounded


@dataclass(frozen=True)
class Facts:
    """All of it, gathered in one round trip. What the guest did not tell is empty or `None`."""

    boot_id: str = ""
    machine_id: str = ""
    hostname: str = ""
    firmware: str = ""  # "efi" or "bios"; "none" where the hypervisor starts the kernel itself
    os: OsFacts = field(default_factory=OsFacts)
    kernel: KernelFacts = field(default_factory=KernelFacts)
    clock: ClockFacts = field(default_factory=ClockFacts)
    cpu: CpuFacts = field(default_factory=CpuFacts)
    memory_kib: int | None = None
    swap_kib: int | None = None
    entropy_bits: int | None = None
    disks: tuple[BlockDevice, ...] = ()
    nics: tuple[Nic, ...] = ()
    routes: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    virtualization: VirtualizationFacts = field(default_factory=VirtualizationFacts)
    failed_units: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Plain values for a report, with `virtualization.dmi` as an object."""
        plain = asdict(self)
        plain["virtualization"]["dmi"] = dict(self.virtualization.dmi)
        return plain
