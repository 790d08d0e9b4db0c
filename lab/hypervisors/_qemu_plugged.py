"""What is plugged into a running QEMU machine, each as the device that QEMU takes by QMP or on its command line.

A plugged device is a part of the machine until it is detached: the machine has it after a power cycle too. Its
place is written down, because a saved memory fits only a machine whose devices are where they were.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lab.contracts import Profile

NETWORK_CARDS: Mapping[str, str] = {"virtio": "virtio-net-pci", "e1000e": "e1000e", "vmxnet3": "vmxnet3"}
HOTPLUG_PORTS = 4  # q35 takes a card at run time only where a root port waits for one
MEMORY_SLOTS = 8
MODULE_MIB = 128  # Linux and Windows take and give memory in blocks of this size (Linux: memory-hotplug.rst)


@dataclass(frozen=True)
class Plugged:
    """A disk or a network card that came while the machine ran."""

    name: str
    port: str  # where it sits: a root port ("port0"), a slot of the PCI bus ("pci.1e"), a place on SCSI ("scsi.3")
    mac: str = ""  # of a card
    network: int = 0  # of a card: it is alone in 10.0.<network>.0/24, or at the hub of that number with its cable
    shared: str = ""  # of a card: the network that it shares with other machines of the run

    @property
    def node(self) -> str:
        return f"plugged-{self.name}"

    @property
    def device(self) -> str:
        return f"device-{self.name}"


@dataclass(frozen=True)
class Processor:
    """A processor that came while the machine ran: QEMU's type of it and its place in the topology."""

    driver: str
    socket: int
    core: int
    thread: int

    @property
    def device(self) -> str:
        return f"processor-{self.socket}-{self.core}-{self.thread}"


@dataclass(frozen=True)
class Module:
    """Memory that came while the machine ran."""

    name: str
    size_mib: int
    slot: int
    address: int = 0  # in the guest's memory; 0: not given yet

    @property
    def memory(self) -> str:
        return f"memory-{self.name}"

    @property
    def device(self) -> str:
        return f"module-{self.name}"


@dataclass(frozen=True)
class Equipment:
    """Everything that is plugged into a machine."""

    disks: tuple[Plugged, ...] = ()
    nics: tuple[Plugged, ...] = ()
    processors: tuple[Processor, ...] = ()
    modules: tuple[Module, ...] = ()


def equipment(content: Mapping[str, Any]) -> Equipment:
    """What was written as `dataclasses.asdict`, or is a part of it. Raises `KeyError`, `TypeError`."""
    return Equipment(
        disks=tuple(Plugged(**entry) for entry in content["disks"]),
        nics=tuple(Plugged(**entry) for entry in content["nics"]),
        processors=tuple(Processor(**entry) for entry in content.get("processors", ())),
        modules=tuple(Module(**entry) for entry in content.get("modules", ())),
    )


def ports(profile: Profile) -> tuple[str, ...]:
    """The root ports of a q35 machine that wait for a card; a PC's bus takes cards where nothing is."""
    return tuple(f"port{number}" for number in range(HOTPLUG_PORTS)) if profile.chipset == "q35" else ()


def disk(profile: Profile, plugged: Plugged) -> dict[str, object]:
    """The device of a plugged disk as `device_add` takes it."""
    drivers = {"virtio": "virtio-blk-pci", "nvme": "nvme", "pvscsi": "scsi-hd"}  # of NVMe: a controller with one disk
    common = {"id": plugged.device, "drive": plugged.node, "serial": plugged.name}
    return {"driver": drivers[profile.disk], **_place(plugged), **common}


def network(plugged: Plugged) -> dict[str, object]:
    """The network of a plugged card as `netdev_add` takes it."""
    if plugged.shared:
        # The cable comes to the other port of this hub once QEMU runs.
        return {"type": "hubport", "id": plugged.node, "hubid": plugged.network}
    return {"type": "user", "id": plugged.node, "net": f"10.0.{plugged.network}.0/24"}


def card(profile: Profile, plugged: Plugged) -> dict[str, object]:
    """The device of a plugged card as `device_add` takes it."""
    model = {"driver": NETWORK_CARDS[profile.nic], "id": plugged.device, "netdev": plugged.node, "mac": plugged.mac}
    return {**model, **_place(plugged)}


def processor(plugged: Processor) -> dict[str, object]:
    """The device of a plugged processor as `device_add` takes it."""
    place = {"socket-id": plugged.socket, "core-id": plugged.core, "thread-id": plugged.thread}
    return {"driver": plugged.driver, "id": plugged.device, **place}


def memory(plugged: Module) -> dict[str, object]:
    """What is behind a memory module, as `object-add` takes it."""
    return {"qom-type": "memory-backend-ram", "id": plugged.memory, "size": plugged.size_mib << 20}


def module(plugged: Module) -> dict[str, object]:
    """The device of a memory module as `device_add` takes it."""
    address = {"addr": plugged.address} if plugged.address else {}
    return {"driver": "pc-dimm", "id": plugged.device, "memdev": plugged.memory, "slot": plugged.slot, **address}


def _place(plugged: Plugged) -> dict[str, object]:
    kind, _, number = plugged.port.partition(".")
    if kind == "scsi":
        return {"bus": "scsi0.0", "scsi-id": int(number)}
    if kind == "pci":
        return {"bus": "pci.0", "addr": number}
    return {"bus": plugged.port}
