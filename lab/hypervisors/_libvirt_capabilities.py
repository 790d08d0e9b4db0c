"""What a libvirt host can do, as it says itself: versions, accelerator, devices; and what it cannot, as sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lab.contracts import Capability, Profile
from lab.errors import HostError
from lab.hypervisors import _libvirt_accelerator as accelerator
from lab.hypervisors import _libvirt_xml as xml
from lab.hypervisors._libvirt_link import Link
from lab.hypervisors._libvirt_power import Site

OLDEST = (8, 0)  # knows how much translated code QEMU keeps, and the aliases of devices in all its events
_PNG = (8, 4)  # before, a screenshot is a PPM
_LIMITS: Mapping[Capability, str] = {
    Capability.WARM_CLONES: "Libvirt restores a saved memory only into a domain of the same name and UUID, so a copy "
    "cannot run beside another",
    Capability.SECURE_BOOT: "Libvirt machines of the lab are given their kernel past the signatures, so their firmware "
    "checks none",
    Capability.NETWORK_BOOT: "Libvirt's user network offers no boot server, and the lab makes none on other networks",
    Capability.SHARED_NETWORKS: "A network between machines of an unprivileged libvirt is a process of its own for "
    "each card, which the lab does not start here",
    Capability.VSOCK: "Libvirt's vsock device is that of the host's kernel (/dev/vhost-vsock), which belongs to root",
    Capability.COLD_MIGRATION: "Libvirt of the lab moves machines while they run, and carries none that does not",
    Capability.KEY_VALUES: "QEMU gives a guest values at its start alone (fw_cfg), and libvirt has no other",
    Capability.MEMORY_DUMP: "Libvirt writes a dump into a file of the machine that it runs on, from where the lab "
    "fetches none",
    Capability.SYSRQ: "Libvirt knows magic keys as those of a keyboard alone, and the lab presses none",
}


@dataclass(frozen=True)
class Offers:
    """What a host says of itself."""

    libvirt: str
    qemu: str
    emulator: str
    accelerator: str
    why: str  # this accelerator
    cpu_model: str
    has_tpm: bool
    has_uefi: bool


# A daemon without a cache tries every QEMU that is installed before it answers for the first time.
_FIRST_ANSWER_S = 240.0


def _versions(connection: Any) -> tuple[int, int]:
    return connection.getLibVersion(), connection.getVersion()


def offers(link: Link, wanted: str, *, is_this_machine: bool) -> Offers:
    """Ask. Raises `HostError` when it is too old or has no QEMU for these guests."""
    library, hypervisor = link.ask("asking for versions", _versions, limit_s=_FIRST_ANSWER_S)
    version = _version(library)
    if (library // 1_000_000, library // 1000 % 1000) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise HostError(f"{link.host} has libvirt {version}; the lab needs {oldest} or later")
    said = xml.read(link.ask("asking for capabilities", _capabilities_of("qemu"), limit_s=120.0))
    emulator = said.findtext("path") or ""
    chosen = accelerator.choose(link, wanted, is_this_machine=is_this_machine)
    devices = said.find("devices")
    return Offers(
        libvirt=version,
        qemu=_version(hypervisor),
        emulator=emulator,
        accelerator=chosen.name,
        why=chosen.why,
        cpu_model="host-passthrough" if chosen.name == "kvm" else "maximum, less what QEMU emulates with faults",
        has_tpm=_offers(devices, "tpm", "backendModel", "emulator"),
        has_uefi=_offers(said, "os", "firmware", "efi"),
    )


def _capabilities_of(kind: str) -> Any:
    return lambda connection: connection.getDomainCapabilities(None, "x86_64", None, kind, 0)


def limits(offered: Offers, site: Site) -> Mapping[Capability, str]:
    """What the host cannot do although others can: sentences."""
    found = dict(_LIMITS)
    if not offered.has_tpm:
        found[Capability.TPM] = "Libvirt of this host offers no emulated TPM (is swtpm installed there?)"
    if tuple(int(part) for part in offered.libvirt.split(".")[:2]) < _PNG:
        found[Capability.SCREENSHOTS] = f"Libvirt {offered.libvirt} takes screenshots in no format that the lab shows"
    if len(site.places) < 2:
        found[Capability.LIVE_MIGRATION] = "The inventory names one libvirt, and a machine moves between two"
    return found


def refuses(offered: Offers, profile: Profile) -> str | None:
    """Why this host cannot make that hardware, or `None`."""
    if profile.tpm and not offered.has_tpm:
        return "libvirt of this host offers no emulated TPM (is swtpm installed there?)"
    if profile.firmware == "uefi" and not offered.has_uefi:
        return "libvirt of this host knows no UEFI firmware (is ovmf installed there?)"
    return None


def _version(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


def _offers(root: Any, element: str, enum: str, value: str) -> bool:
    found = None if root is None else root.find(element)
    if found is None or found.get("supported") != "yes":
        return False
    return any(entry.text == value for entry in found.iterfind(f"enum[@name='{enum}']/value"))
