"""Which Xen and which xl a host has, and what differs between releases: quirks as data, each with its source."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from lab.errors import HostError

Version = tuple[int, int]
OLDEST: Version = (4, 4)  # xl alone: xm went with 4.5, and was not preferred since 4.4
NEWEST: Version = (4, 20)  # the last whose notes were read

_LINE = re.compile(r"^(\w+)\s*: ?(.*)$", re.MULTILINE)


class Can(StrEnum):
    """What a toolstack has or has not."""

    TYPE_KEY = "type-key"  # `type = "pv"` in xl.cfg
    PVH = "pvh"  # PVH as it is today
    SAVE_PAUSED = "save-paused"  # `xl save -p`
    HVM_KERNEL = "hvm-kernel"  # the kernel of an HVM domain from a file of the dom0


@dataclass(frozen=True)
class Quirk:
    """From which release on a toolstack can something."""

    what: Can
    since: Version
    lacks: str  # said of a release before it
    source: str


QUIRKS: tuple[Quirk, ...] = (
    Quirk(
        Can.TYPE_KEY,
        (4, 10),
        "xl before 4.10 tells the kinds of domains apart by `builder`",
        "Xen 4.10, docs/man/xl.cfg.pod.5.in, `type`; before it `builder = generic`",
    ),
    Quirk(
        Can.PVH,
        (4, 10),
        "Xen before 4.10 has no PVH domains as they are made today",
        "Xen Project 4.10 feature list: PVH v2 guests",
    ),
    Quirk(
        Can.SAVE_PAUSED,
        (4, 5),
        "xl before 4.5 cannot leave a domain paused after saving it (`xl save -p`), so its disks would run ahead",
        "docs/man/xl.pod.1 of 4.5, `save`, -p; not in that of 4.4",
    ),
    Quirk(
        Can.HVM_KERNEL,
        (4, 5),
        "xl before 4.5 starts no kernel of its own choice in an HVM domain, only what is on the disk",
        "Xen 4.5, docs/man/xl.cfg.pod.5, Direct Kernel Boot; in 4.4 `kernel` replaces hvmloader",
    ),
)

NATIVE_TSC = (
    "An emulated processor reports RDTSCP exits as RDTSC, and Xen then gives the guest a general protection fault: "
    "so PVH and HVM domains on it read the counter themselves"
)
NO_OVMF = "the dom0 has no OVMF that was built for Xen (edk2's OvmfXen; that of Debian 12 is not)"
# arch/x86/mm/paging.c, XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY: without CONFIG_SHADOW_PAGING a PV domain has none.
NO_LOG_DIRTY = (
    "This Xen is built without shadow paging, as Debian's is: a PV domain has no log of its dirty pages and cannot "
    "move live (PVH domains can); save it, carry it to the other host, and start it there"
)


@dataclass(frozen=True)
class Toolstack:
    """What `xl info` said."""

    version: Version
    full: str  # "4.17.7"
    capabilities: tuple[str, ...]  # virt_caps, and what xen_caps adds
    free_mib: int
    details: Mapping[str, str] = field(default_factory=dict)
    device_model: bool = False  # what emulates the hardware of HVM domains is in the dom0
    ovmf: str = ""  # UEFI for them, built for Xen, in the dom0

    def can(self, what: Can) -> bool:
        return self.lacks(what) is None

    def lacks(self, what: Can) -> str | None:
        """The sentence that says why not, or `None`."""
        found = next((quirk for quirk in QUIRKS if quirk.what is what and self.version < quirk.since), None)
        return None if found is None else found.lacks

    def runs_pvh(self) -> str | None:
        """Why not, or `None`."""
        lacks = self.lacks(Can.PVH)
        if lacks is None and not {"hvm", "pvh"} & set(self.capabilities):
            lacks = "the processor of this host has no hardware virtualisation that Xen can use, and PVH needs it"
        return lacks

    def runs_hvm(self) -> str | None:
        """Why not, or `None`."""
        if "hvm" not in self.capabilities:
            return "the processor of this host has no hardware virtualisation that Xen can use, and HVM needs it"
        if not self.device_model:
            return "the dom0 has no device model for HVM: Xen's qemu-system-i386, of Debian's package qemu-system-xen"
        return None

    def runs_uefi(self) -> str | None:
        """Why HVM domains get no UEFI, or `None`."""
        return self.runs_hvm() or (None if self.ovmf else NO_OVMF)

    def moves_no_pv(self) -> str | None:
        """Why PV domains cannot move live, or `None` where it does not show (virt_caps tells of shadow since 4.13)."""
        tells = self.version >= (4, 13)
        return NO_LOG_DIRTY if tells and "shadow" not in self.capabilities else None

    def is_known(self) -> bool:
        """Whether it is one of those whose differences were looked at."""
        return OLDEST <= self.version <= NEWEST


def read(said: str, host: str) -> Toolstack:
    """Raises `HostError` for what no `xl info` says, and for a Xen that is too old."""
    keys = {key: value.strip()[:400] for key, value in _LINE.findall(said[: 1 << 16])}
    major, minor = keys.get("xen_major", ""), keys.get("xen_minor", "")
    if not (major.isascii() and major.isdigit() and minor.isascii() and minor.isdigit() and len(major + minor) < 8):
        raise HostError(
            f"{host}: xl info tells no version of Xen: {said.strip()[:200]!r}",
            hint="log in to the dom0 and run xl info: did it boot under Xen, and does xl belong to that Xen?",
        )
    version = (int(major), int(minor))
    full = keys.get("xen_version") or f"{major}.{minor}{keys.get('xen_extra', '')}"
    if version < OLDEST:
        raise HostError(f"{host} has Xen {full}; the lab speaks to {OLDEST[0]}.{OLDEST[1]} and later")
    capabilities = keys.get("virt_caps", "").split()
    if not capabilities:  # older ones say it only so
        capabilities = sorted(
            {word.partition("-")[0].replace("xen", "pv") for word in keys.get("xen_caps", "").split()}
        )
    free = keys.get("free_memory", "0")
    told = ("release", "xen_caps", "virt_caps", "total_memory", "xen_scheduler", "xen_changeset", "xen_commandline")
    return Toolstack(
        version=version,
        full=full,
        capabilities=tuple(capabilities),
        free_mib=int(free) if free.isdigit() and len(free) < 12 else 0,
        details={key: keys[key] for key in told if keys.get(key)},
    )
