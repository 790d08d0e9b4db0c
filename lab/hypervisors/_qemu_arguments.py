"""QEMU's command line for one machine: a pure function from a profile and file names to words.

Values go in as JSON wherever QEMU takes it (`-blockdev`, `-device`, `-object`), so that a comma or a quote in
a path cannot become an option of its own; where QEMU takes only its comma syntax, commas are doubled
(qemu(1), "-drive": "a filename containing comma should be double comma").
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.contracts import LINE_PORT, Firmware, MachineSpec, Profile
from lab.hypervisors import _qemu_firmware as firmware
from lab.hypervisors import _qemu_plugged as plugged
from lab.hypervisors import _qemu_tpm as tpm
from lab.hypervisors._qemu_plugged import Module, Plugged, Processor

ROOT_DEVICES: Mapping[str, str] = {
    "virtio": "/dev/vda",
    "sata": "/dev/sda",
    "nvme": "/dev/nvme0n1",
    "pvscsi": "/dev/sda",
}
CHIPSETS = ("pc", "q35")
AGENT_PORT = "org.qemu.guest_agent.0"  # the name that the agent looks for in the guest
LINE_SOCKET = "line.sock"
FIRMWARES = (Firmware.BIOS, Firmware.UEFI)

# Where user-mode networking puts the guest; every machine has a network of its own, so all may look alike,
# and a warm clone finds the card and the address that its memory already holds.
GUEST_ADDRESS = "10.0.2.15"
GUEST_MAC = "52:54:00:4c:41:42"
# Of translated code that QEMU keeps. With its own 1 GiB nothing is ever thrown away, and after a reset each write to a
# page that once held code looks through all that was translated there: a Debian that booted in 41 s took 117 s after
# its first reboot, and after the second its kernel reported soft lockups. With this much all boots take the same.
TRANSLATED_MIB = 64


@dataclass(frozen=True)
class Files:
    """The files of one machine, all absolute."""

    root: Path
    seed: Path | None
    seed_format: str
    data: Path | None
    firmware_code: Path | None
    firmware_variables: Path | None
    boot: Path | None = None  # what the firmware starts from, where that is not the root disk


@dataclass(frozen=True)
class FromNetwork:
    """One start from a server of QEMU's own: it gives away the files of a folder."""

    folder: Path
    file: str  # what the firmware asks for first


@dataclass(frozen=True)
class Hardware:
    """Everything that the command line depends on."""

    binary: str
    accelerator: str  # "tcg" or "kvm"
    cpu_model: str
    spec: MachineSpec
    files: Files
    disks: tuple[tuple[Plugged, Path], ...] = ()
    nics: tuple[Plugged, ...] = ()
    processors: tuple[Processor, ...] = ()
    modules: tuple[Module, ...] = ()
    network_boot: FromNetwork | None = None


def refuses(profile: Profile) -> str | None:
    """Why this driver cannot make that hardware, or `None`."""
    offered = (
        ("disk", profile.disk, tuple(ROOT_DEVICES)),
        ("nic", profile.nic, tuple(plugged.NETWORK_CARDS)),
        ("chipset", profile.chipset, CHIPSETS),
        ("firmware", profile.firmware, FIRMWARES),
    )
    for key, value, known in offered:
        if value not in known:
            return f"QEMU machines of the lab have no {key} {str(value)!r} (they have {', '.join(known)})"
    return firmware.refuses(profile)


def escaped(value: str) -> str:
    """A value for QEMU's comma syntax: commas doubled."""
    return value.replace(",", ",,")


def words(hardware: Hardware, forwards: Mapping[int, int]) -> list[str]:
    """The command line; `forwards` maps TCP ports of the guest to ports of 127.0.0.1 (0: any free one)."""
    return [
        hardware.binary,
        *_processor(hardware),
        *_ways_in(),
        *_kernel(hardware),
        *_disks(hardware),
        *_network(hardware, forwards),
        *_small_devices(hardware),
        *_plugged(hardware),
    ]


def writable_nodes(hardware: Hardware) -> tuple[str, ...]:
    """The block nodes that a snapshot must hold; the first one takes the memory."""
    files = hardware.files
    nodes = ["root"]
    if files.seed is not None and files.seed_format == "qcow2":
        nodes.append("seed")
    if files.data is not None:
        nodes.append("data")
    if files.firmware_variables is not None:
        nodes.append("firmware-variables")
    return tuple(nodes)


def _processor(hardware: Hardware) -> list[str]:
    profile = hardware.spec.profile
    machine = profile.chipset
    if hardware.files.firmware_variables is not None:
        machine += ",pflash0=firmware-code,pflash1=firmware-variables"
    if profile.secure_boot:
        machine += ",smm=on"
    if profile.firmware is Firmware.BIOS and hardware.spec.image.kernel is None:
        # SeaBIOS and boot loaders then speak on the serial line too; the screen is no evidence that can be searched.
        machine += ",graphics=off"
    accelerator = (
        f"tcg,thread=multi,tb-size={TRANSLATED_MIB}" if hardware.accelerator == "tcg" else hardware.accelerator
    )
    return [
        *("-name", f"guest={escaped(hardware.spec.name)}"),
        *("-machine", machine),
        *("-accel", accelerator),
        *("-cpu", hardware.cpu_model),
        # Variables can be written in system management mode alone, so not by the guest's kernel (OvmfPkg/README).
        *(("-global", "driver=cfi.pflash01,property=secure,value=on") if profile.secure_boot else ()),
        *("-smp", f"{profile.vcpus},maxcpus={profile.max_vcpus or profile.vcpus}"),
        *("-m", _memory(profile)),
        *("-nodefaults", "-no-user-config", "-no-shutdown"),
        # What a guest could make of a hole in QEMU stays without new processes and privileges.
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        # A panic is noted and the guest goes on as it likes: whether it reboots or dumps is its own affair.
        *("-action", "panic=none,watchdog=none"),
    ]


def _memory(profile: Profile) -> str:
    if not profile.max_memory_mib:
        return f"{profile.memory_mib}M"
    return f"{profile.memory_mib}M,slots={plugged.MEMORY_SLOTS},maxmem={profile.max_memory_mib}M"


def _ways_in() -> list[str]:
    return [
        *("-display", "none"),
        # The keeper reads the console from this pipe; by hand it comes to the terminal.
        *("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"),
        # Relative to the machine's directory: a socket's path must fit into 107 bytes.
        *("-chardev", "socket,id=monitor,path=qmp.sock,server=on,wait=off", "-mon", "chardev=monitor,mode=control"),
        # What the guest says while nobody listens is thrown away.
        *("-chardev", "socket,id=agent,path=agent.sock,server=on,wait=off"),
        *("-chardev", f"socket,id=line,path={LINE_SOCKET},server=on,wait=off"),
    ]


def kernel_arguments(spec: MachineSpec) -> str:
    """What the kernel of the machine is told."""
    root = ROOT_DEVICES[spec.profile.disk]
    # The last console= is the one behind /dev/console; the first puts the kernel on the screen as well.
    return f"{spec.image.kernel_arguments} root={root} rw console=tty0 console=ttyS0".strip()


def _kernel(hardware: Hardware) -> list[str]:
    image = hardware.spec.image
    if image.kernel is None or hardware.files.boot is not None or hardware.network_boot is not None:
        return []
    initrd = [] if image.initrd is None else ["-initrd", str(image.initrd)]
    return ["-kernel", str(image.kernel), *initrd, "-append", kernel_arguments(hardware.spec)]


def _disks(hardware: Hardware) -> list[str]:
    files = hardware.files
    bus = hardware.spec.profile.disk
    found = _controller(hardware.spec.profile)
    if files.firmware_code is not None and files.firmware_variables is not None:
        found += _blockdev("firmware-code", files.firmware_code, "raw", read_only=True)
        found += _blockdev("firmware-variables", files.firmware_variables, "qcow2")
    found += _blockdev("root", files.root, "qcow2")
    # Nothing else is tried when what should be started is refused, or the network does not answer.
    first = files.boot is None and hardware.network_boot is None
    found += _disk_device(hardware.spec.profile, bus, "root", 0, bootable=first)
    if files.seed is not None:
        read_only = files.seed_format == "raw"
        found += _blockdev("seed", files.seed, files.seed_format, read_only=read_only)
        found += _disk_device(hardware.spec.profile, bus, "seed", 1)
    if files.data is not None:
        found += _blockdev("data", files.data, "qcow2")
        found += _disk_device(hardware.spec.profile, bus, "data", 2)
    return found


def _controller(profile: Profile) -> list[str]:
    if profile.disk == "nvme":
        return _device({"driver": "nvme", "id": "nvme0", "serial": "lab-nvme"})
    if profile.disk == "pvscsi":
        return _device({"driver": "pvscsi", "id": "scsi0"})
    if profile.disk == "sata" and profile.chipset == "pc":
        return _device({"driver": "ich9-ahci", "id": "ahci0"})
    return []


def _disk_device(profile: Profile, bus: str, node: str, unit: int, *, bootable: bool = False) -> list[str]:
    serial = f"lab-{node}"
    # Place 0 belongs to a kernel given with -kernel.
    boot: dict[str, object] = {"bootindex": 1} if bootable else {}
    if bus == "nvme":
        device: dict[str, object] = {"driver": "nvme-ns", "bus": "nvme0", "nsid": unit + 1}
    elif bus == "sata":
        # q35 has an AHCI controller of its own, whose ports are called ide.N.
        ports = "ide" if profile.chipset == "q35" else "ahci0"
        device = {"driver": "ide-hd", "bus": f"{ports}.{unit}", "serial": serial}
    elif bus == "pvscsi":
        device = {"driver": "scsi-hd", "bus": "scsi0.0", "scsi-id": unit, "lun": 0, "serial": serial}
    else:
        device = {"driver": "virtio-blk-pci", "serial": serial}
    return _device({**device, "id": f"disk-{node}", "drive": node, **boot})


def blockdev(node: str, path: Path, disk_format: str, *, read_only: bool = False) -> dict[str, object]:
    """A block node as QMP's `blockdev-add` takes it.

    `no-flush`: nothing here outlives a crash of this machine, and a flush to its disk costs the guest seconds.
    """
    cache = {"direct": False, "no-flush": True}
    return {
        "driver": disk_format,
        "node-name": node,
        "read-only": read_only,
        "discard": "unmap",
        "cache": cache,
        "file": {"driver": "file", "filename": str(path), "discard": "unmap", "cache": cache},
    }


def _blockdev(node: str, path: Path, disk_format: str, *, read_only: bool = False) -> list[str]:
    return ["-blockdev", json.dumps(blockdev(node, path, disk_format, read_only=read_only))]


def _network(hardware: Hardware, forwards: Mapping[int, int]) -> list[str]:
    profile, served = hardware.spec.profile, hardware.network_boot
    rules = "".join(f",hostfwd=tcp:127.0.0.1:{here}-{GUEST_ADDRESS}:{guest}" for guest, here in forwards.items())
    card: dict[str, object] = {"driver": plugged.NETWORK_CARDS[profile.nic], "id": "nic0", "netdev": "net0"}
    card["mac"] = GUEST_MAC
    if served is not None:
        rules += f",tftp={escaped(str(served.folder))},bootfile={escaped(served.file)}"
        card["bootindex"] = 0
    elif profile.nic == "virtio":
        card["romfile"] = ""  # no network boot: its menu costs seconds before every disk boot
    return ["-netdev", f"user,id=net0{rules}", *_device(card)]


def _small_devices(hardware: Hardware) -> list[str]:
    profile, boot = hardware.spec.profile, hardware.files.boot
    found = [
        *("-object", json.dumps({"qom-type": "rng-random", "id": "rng0", "filename": "/dev/urandom"})),
        *_device({"driver": "virtio-rng-pci", "id": "random", "rng": "rng0"}),
        *_device({"driver": "virtio-balloon-pci", "id": "balloon"}),
        *_device({"driver": "VGA", "id": "display"}),
        *_device({"driver": "vmgenid", "id": "generation", "guid": "auto"}),
        *_device({"driver": "pvpanic", "id": "panic"}),
        # The one watchdog that fits both chipsets and that Linux and Windows know.
        *_device({"driver": "i6300esb", "id": "watchdog"}),
        *_device({"driver": "virtio-serial-pci", "id": "ports"}),
        *_device({"driver": "virtserialport", "bus": "ports.0", "nr": 1, "chardev": "agent", "name": AGENT_PORT}),
        *_device({"driver": "virtserialport", "bus": "ports.0", "nr": 2, "chardev": "line", "name": LINE_PORT}),
    ]
    found += tpm.words(profile)
    if boot is not None:
        # Behind the others, so that they keep their names in the guest.
        disk: dict[str, object] = {"driver": "virtio-blk-pci", "id": "disk-boot", "drive": "boot", "serial": "lab-boot"}
        if hardware.network_boot is None:
            disk["bootindex"] = 1
        found += [*_blockdev("boot", boot, "raw", read_only=True), *_device(disk)]
    for number, port in enumerate(plugged.ports(profile)):
        found += _device({"driver": "pcie-root-port", "id": port, "chassis": number + 1, "slot": number})
    return found


def _plugged(hardware: Hardware) -> list[str]:
    found: list[str] = []
    for processor in hardware.processors:
        found += _device(plugged.processor(processor))
    for module in hardware.modules:
        found += ["-object", json.dumps(plugged.memory(module)), *_device(plugged.module(module))]
    for disk, path in hardware.disks:
        found += _blockdev(disk.node, path, "qcow2")
        found += _device(plugged.disk(hardware.spec.profile, disk))
    for card in hardware.nics:
        network = plugged.network(card)
        found += ["-netdev", ",".join([str(network.pop("type")), *(f"{key}={network[key]}" for key in network)])]
        found += _device(plugged.card(hardware.spec.profile, card))
    return found


def _device(properties: Mapping[str, object]) -> list[str]:
    return ["-device", json.dumps(properties)]
