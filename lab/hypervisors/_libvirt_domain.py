"""A machine as libvirt's domain XML: a pure function from a profile and names of files to elements.

What the elements mean says libvirt's page "Domain XML format". The devices are those of the qemu driver, so that a cell
on either is about the same hardware.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lab.contracts import Firmware, Profile
from lab.hypervisors import _libvirt_mark as marks
from lab.hypervisors import _libvirt_xml as xml
from lab.hypervisors._libvirt_mark import Mark
from lab.hypervisors._libvirt_xml import Element, element

DISKS: Mapping[str, str] = {"virtio": "virtio", "sata": "sata", "pvscsi": "scsi"}  # model of a profile: libvirt's bus
_LETTERS: Mapping[str, str] = {"virtio": "vd", "sata": "sd", "scsi": "sd"}
NICS = ("virtio", "e1000e", "vmxnet3")
CHIPSETS = ("pc", "q35")
FIRMWARES = (Firmware.BIOS, Firmware.UEFI)
AGENT_PORT = "org.qemu.guest_agent.0"
MEMORY_SLOTS, MODULE_MIB = 8, 128  # Linux takes and gives memory in blocks of that size
HOTPLUG_PORTS = 4  # q35 takes a card at run time only where a root port waits for one
# As the qemu driver: what QEMU emulates without faults, and how much translated code it keeps.
WITHOUT_UNDER_TCG = (
    *("smap", "xsave", "xsaveopt", "xsavec", "xgetbv1", "xsaves", "avx", "avx2", "fma", "f16c"),
    *("vaes", "vpclmulqdq", "rdtscp", "pku"),
)
_TRANSLATED_MIB = 64
# Of q35: on the root complex, as the qemu driver has them; libvirt would put a root port before each.
_SLOTS: Mapping[str, int] = {
    "nic": 2,
    "root": 3,
    "seed": 4,
    "data": 5,
    "balloon": 6,
    "random": 7,
    "ports": 8,
    "watchdog": 9,
    "scsi": 10,
}
_PLACES = ("root", "seed", "data")


@dataclass(frozen=True)
class Disk:
    """A disk by the path of its file at the host."""

    name: str  # "root", "seed", "data", or that of one that was plugged in
    path: str
    disk_format: str
    is_read_only: bool = False


@dataclass(frozen=True)
class Network:
    """What a card is connected to."""

    kind: str = "user"  # "user": QEMU's own, of this machine alone; "network": libvirt's; "bridge": the host's
    name: str = ""


@dataclass(frozen=True)
class Domain:
    """Everything that the XML depends on."""

    mark: Mark
    kind: str  # "qemu" for software emulation, "kvm"
    disks: tuple[Disk, ...]
    console: str  # file at the host
    kernel: str = ""
    initrd: str = ""
    cpu_model: str = ""
    network: Network = Network()


def refuses(profile: Profile) -> str | None:
    """Why this driver cannot make that hardware, or `None`."""
    offered = (
        ("disk", profile.disk, tuple(DISKS)),
        ("nic", profile.nic, NICS),
        ("chipset", profile.chipset, CHIPSETS),
        ("firmware", profile.firmware, FIRMWARES),
    )
    for key, value, known in offered:
        if value not in known:
            return f"libvirt machines of the lab have no {key} {str(value)!r} (they have {', '.join(known)})"
    if profile.secure_boot:
        return "libvirt machines of the lab have no secure boot: they are given their kernel past the signatures"
    return None


def mac_of(uuid: str) -> str:
    """Of the first card: QEMU's prefix, the rest from the identity."""
    return "52:54:00:" + ":".join(uuid.replace("-", "")[at : at + 2] for at in (26, 28, 30))


def whole(domain: Domain) -> Element:
    """The `<domain>`."""
    spec, profile = domain.mark.spec, domain.mark.spec.profile
    most = profile.max_memory_mib
    return element(
        "domain",
        element("name", text=domain.mark.domain),
        element("uuid", text=domain.mark.uuid),
        *([element("genid")] if domain.kind in ("qemu", "kvm") else []),
        element("title", text=f"Interop Lab: {spec.owner.cell}"),
        element("metadata", marks.element(domain.mark)),
        *([element("maxMemory", text=most, slots=MEMORY_SLOTS, unit="MiB")] if most else []),
        element("memory", text=profile.memory_mib, unit="MiB"),
        element("vcpu", text=profile.max_vcpus or profile.vcpus, current=profile.vcpus),
        _os(domain),
        _features(domain),
        _cpu(domain),
        element("clock", offset="utc"),
        element("on_poweroff", text="destroy"),
        element("on_reboot", text="restart"),
        # The guest that panicked stands still, to be looked at; the qemu driver lets it go on.
        element("on_crash", text="preserve"),
        element("devices", *_devices(domain)),
        type_=domain.kind,
    )


def _os(domain: Domain) -> Element:
    profile, image = domain.mark.spec.profile, domain.mark.spec.image
    inside = [element("type", text="hvm", arch="x86_64", machine=profile.chipset)]
    if domain.kernel:
        inside.append(element("kernel", text=domain.kernel))
        if domain.initrd:
            inside.append(element("initrd", text=domain.initrd))
        # The last console= is the one behind /dev/console; the first puts the kernel on the screen as well.
        root = "/dev/vda" if profile.disk == "virtio" else "/dev/sda"
        words = f"{image.kernel_arguments} root={root} rw console=tty0 console=ttyS0"
        inside.append(element("cmdline", text=words.strip()))
    if profile.firmware is Firmware.UEFI:
        return element("os", *inside, firmware="efi")
    if not domain.kernel:
        # SeaBIOS and boot loaders speak on the serial line too; the screen is no evidence that can be searched.
        inside.append(element("bios", useserial="yes"))
    return element("os", *inside)


def _features(domain: Domain) -> Element:
    inside = [element("acpi"), element("apic")]
    if domain.kind == "qemu":
        inside.append(element("tcg", element("tb-cache", text=_TRANSLATED_MIB, unit="MiB")))
    return element("features", *inside)


def _cpu(domain: Domain) -> Element:
    profile = domain.mark.spec.profile
    most = profile.max_vcpus or profile.vcpus
    cells: list[Element] = []
    if profile.max_memory_mib:
        # libvirt plugs memory only into machines that have nodes.
        cpus = f"0-{most - 1}" if most > 1 else "0"
        cell = element("cell", id_=0, cpus=cpus, memory=profile.memory_mib, unit="MiB")
        cells.append(element("numa", cell))
    if domain.cpu_model:
        model = element("model", text=domain.cpu_model, fallback="forbid")
        return element("cpu", model, *cells, mode="custom", match="exact", check="none")
    if domain.kind == "kvm":
        return element("cpu", *cells, mode="host-passthrough", check="none")
    without = [element("feature", policy="disable", name=name) for name in WITHOUT_UNDER_TCG]
    return element("cpu", *without, *cells, mode="maximum", check="none")


def _devices(domain: Domain) -> Iterator[Element]:
    profile = domain.mark.spec.profile
    for number, one in enumerate(domain.disks):
        yield disk(profile, one, number)
    if profile.disk == "pvscsi":
        yield element("controller", *_slot(profile, "scsi"), type_="scsi", index=0, model="vmpvscsi")
    yield element("controller", type_="usb", model="none")
    yield element("controller", *_slot(profile, "ports"), type_="virtio-serial", index=0)
    if profile.chipset == "q35":
        yield element("controller", type_="pci", index=0, model="pcie-root")
        for number in range(HOTPLUG_PORTS):
            yield element("controller", type_="pci", index=number + 1, model="pcie-root-port")
    yield card(profile, domain.network, mac_of(domain.mark.uuid), address=_slot(profile, "nic"), alias="ua-nic-first")
    log = element("log", file=domain.console, append="on")
    yield element("serial", log, element("target", type_="isa-serial", port=0), type_="pty")
    yield element("channel", element("target", type_="virtio", name=AGENT_PORT), type_="unix")
    if profile.tpm:
        backend = element("backend", type_="emulator", version="2.0")
        yield element("tpm", backend, model="tpm-tis" if profile.chipset == "pc" else "tpm-crb")
    yield element("video", element("model", type_="vga"))
    yield element("watchdog", *_slot(profile, "watchdog"), model="i6300esb", action="none")
    yield element("memballoon", *_slot(profile, "balloon"), model="virtio")
    source = element("backend", text="/dev/urandom", model="random")
    yield element("rng", source, *_slot(profile, "random"), model="virtio")
    yield element("panic", model="isa")


def disk(profile: Profile, wanted: Disk, number: int) -> Element:
    """A disk, the machine's `number`th."""
    bus = DISKS[profile.disk]
    address = _slot(profile, wanted.name) if bus == "virtio" and wanted.name in _PLACES else ()
    if bus == "scsi":
        # A pvscsi controller has targets, each with one disk; libvirt would take one target with many.
        address = (element("address", type_="drive", controller=0, bus=0, target=number, unit=0),)
    # Nothing here outlives a crash of the host, and a flush to its disk costs the guest seconds.
    how = {"name": "qemu", "type": wanted.disk_format, "cache": "unsafe", "discard": "unmap"}
    is_own = wanted.name in _PLACES
    inside = [
        Element("driver", how),
        element("source", file=wanted.path),
        element("target", dev=f"{_LETTERS[bus]}{chr(ord('a') + number)}", bus=bus),
        *([element("readonly")] if wanted.is_read_only else []),
        *([element("boot", order=1)] if wanted.name == "root" else []),
        element("serial", text=f"lab-{wanted.name}" if is_own else wanted.name),
        element("alias", name=f"ua-disk-{wanted.name}"),
        *address,
    ]
    return element("disk", *inside, type_="file", device="disk")


def card(profile: Profile, network: Network, mac: str, *, alias: str, address: tuple[Element, ...] = ()) -> Element:
    """A network card."""
    inside = [element("mac", address=mac)]
    if network.kind != "user":
        inside.append(element("source", **{network.kind: network.name}))
    inside.append(element("model", type_=profile.nic))
    if profile.nic == "virtio":
        inside.append(element("rom", enabled="no"))  # no network boot: its menu costs seconds before every disk boot
    inside.append(element("alias", name=alias))
    return element("interface", *inside, *address, type_=network.kind)


def module(size_mib: int, name: str) -> Element:
    """Memory that comes while the machine runs."""
    target = element("target", element("size", text=size_mib, unit="MiB"), element("node", text=0))
    return element("memory", target, element("alias", name=f"ua-module-{name}"), model="dimm")


def _slot(profile: Profile, device: str) -> tuple[Element, ...]:
    if profile.chipset != "q35" or device not in _SLOTS:
        return ()
    return (element("address", type_="pci", domain=0, bus=0, slot=_SLOTS[device], function=0),)


def document(domain: Domain) -> str:
    """The XML. Raises `HypervisorRefused` when a value cannot be written."""
    return xml.text(whole(domain))
