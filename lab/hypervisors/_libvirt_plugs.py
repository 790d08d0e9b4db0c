"""What comes and goes while a libvirt machine runs: disks, cards, processors, memory; and its data disk that grows.

What is plugged in is a part of the machine until it is taken out: libvirt keeps it for the next start too.
"""

from __future__ import annotations

import re
from typing import Any

from lab.errors import HypervisorRefused, NotSupported, WaitedTooLong
from lab.hypervisors import _libvirt_domain as domains
from lab.hypervisors import _libvirt_power as power
from lab.hypervisors import _libvirt_sdk
from lab.hypervisors import _libvirt_xml as xml
from lab.hypervisors._libvirt_domain import Disk, Network
from lab.hypervisors._libvirt_link import Kind, LibvirtRefused
from lab.hypervisors._libvirt_power import Machine

# virtio-blk's serial number has 20 bytes (virtio 1.2, 5.2.6.1), and the name is also part of a file's name.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,19}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_GONE_S = 60.0
_FIRST_FREE = 3  # disks of a machine that were there from the beginning


def attach_disk(machine: Machine, name: str, size_mib: int) -> None:
    """A new empty disk on the bus of the root disk. Raises `NotSupported` for SATA, `HypervisorRefused`."""
    mark = _checked(machine, name)
    profile = mark.spec.profile
    if profile.disk == "sata":
        raise NotSupported("QEMU's AHCI controller takes no disks while the machine runs")
    volume = machine.file(f"plugged-{name}", mark.generation)
    power.require_up(machine)
    machine.site.pool.create(volume, size_mib << 20, disk_format="qcow2")
    power.change(machine, plugged=(*mark.plugged, name))
    number = _FIRST_FREE + _free([int(entry.partition(":")[0]) for entry in _numbers(machine)])
    wanted = domains.disk(profile, Disk(name, machine.path(f"plugged-{name}", mark.generation), "qcow2"), number)
    try:
        _attach(machine, wanted, f"disk {name}")
    except BaseException:
        _forget_disk(machine, name)
        raise


def _numbers(machine: Machine) -> list[str]:
    """Of the plugged disks, "number:alias", as the letters of their targets tell them."""
    root = _document(machine)
    found = []
    for disk in root.iterfind("devices/disk"):
        number = ord(disk.find("target").get("dev")[2]) - ord("a") - _FIRST_FREE
        if number >= 0:
            found.append(f"{number}:{disk.find('alias').get('name')}")
    return found


def _free(taken: list[int]) -> int:
    return next(number for number in range(23) if number not in taken)


def detach_disk(machine: Machine, name: str) -> None:
    """Returns when the guest let go of it. Raises `WaitedTooLong` when the guest keeps it, `HypervisorRefused`."""
    if name not in power.mark_of(machine).plugged:
        raise HypervisorRefused(f"nothing called {name!r} is plugged in")
    _detach(machine, "disk", f"ua-disk-{name}", f"disk {name}")
    _forget_disk(machine, name)


def _forget_disk(machine: Machine, name: str) -> None:
    mark = power.mark_of(machine)
    machine.site.pool.delete(machine.file(f"plugged-{name}", mark.generation))
    power.change(machine, plugged=tuple(one for one in mark.plugged if one != name))


def attach_nic(machine: Machine, name: str, mac: str) -> None:
    """A card of the profile's model, on a network as the first one's. Raises `HypervisorRefused`."""
    mark = _checked(machine, name)
    if not _MAC.fullmatch(mac):
        raise HypervisorRefused(f"{mac!r} is not a MAC address", hint="write it as 52:54:00:00:00:01")
    power.require_up(machine)
    network = machine.site.network if machine.site.network.kind != "user" else Network()
    power.change(machine, cards=(*mark.cards, name))
    try:
        _attach(machine, domains.card(mark.spec.profile, network, mac, alias=f"ua-nic-{name}"), f"card {name}")
    except BaseException:
        _forget_nic(machine, name)
        raise


def detach_nic(machine: Machine, name: str) -> None:
    """Returns when the guest let go of it. Raises `WaitedTooLong` when the guest keeps it."""
    if name not in power.mark_of(machine).cards:
        raise HypervisorRefused(f"nothing called {name!r} is plugged in")
    _detach(machine, "interface", f"ua-nic-{name}", f"network card {name}")
    _forget_nic(machine, name)


def _forget_nic(machine: Machine, name: str) -> None:
    power.change(machine, cards=tuple(one for one in power.mark_of(machine).cards if one != name))


def attach_memory(machine: Machine, name: str, size_mib: int) -> None:
    """A module of whole blocks of 128 MiB. Raises `HypervisorRefused` beyond the profile's `max_memory_mib`."""
    mark = _checked(machine, name)
    profile = mark.spec.profile
    if size_mib <= 0 or size_mib % domains.MODULE_MIB:
        raise HypervisorRefused(f"a memory module has a multiple of {domains.MODULE_MIB} MiB, not {size_mib}")
    most = profile.max_memory_mib or profile.memory_mib
    total = profile.memory_mib + sum(mark.modules.values()) + size_mib
    if total > most:
        raise HypervisorRefused(
            f"profile {profile.name} allows {most} MiB, not {total}",
            hint="max_memory_mib of the profile leaves room for more",
        )
    power.require_up(machine)
    power.change(machine, modules={**mark.modules, name: size_mib})
    try:
        _attach(machine, domains.module(size_mib, name), f"memory module {name}")
    except BaseException:
        _forget_module(machine, name)
        raise


def detach_memory(machine: Machine, name: str) -> None:
    """Returns when the guest let go of it. Raises `HypervisorRefused` when it does not."""
    if name not in power.mark_of(machine).modules:
        raise HypervisorRefused(f"no memory module called {name!r} is plugged in")
    try:
        _detach(machine, "memory", f"ua-module-{name}", f"memory module {name}")
    except WaitedTooLong as reason:
        raise HypervisorRefused(f"the guest keeps memory module {name}: {reason.what}") from reason
    _forget_module(machine, name)


def _forget_module(machine: Machine, name: str) -> None:
    modules = power.mark_of(machine).modules
    power.change(machine, modules={one: size for one, size in modules.items() if one != name})


# ---------------------------------------------------------------------------------------------------------
# Processors, the balloon, the data disk


def set_vcpus(machine: Machine, count: int) -> None:
    """Plug in or out until there are `count`. Raises `HypervisorRefused`, `NotSupported`."""
    profile = power.mark_of(machine).spec.profile
    most = profile.max_vcpus or profile.vcpus
    if not profile.vcpus <= count <= most:
        raise HypervisorRefused(
            f"profile {profile.name} allows {profile.vcpus} to {most} processors, not {count}",
            hint="max_vcpus of the profile leaves room for more" if count > most else "",
        )
    if count < vcpus(machine) and machine.site.kind == "qemu":
        # softmmu/physmem.c, QEMU 7.2, cpu_address_space_init: see docs/decisions/0014 and the qemu driver.
        raise NotSupported(
            "QEMU's software emulation goes on to use the memory of a processor that was taken out, and crashes later"
        )
    flags = _libvirt_sdk.load().VIR_DOMAIN_AFFECT_LIVE | _libvirt_sdk.load().VIR_DOMAIN_AFFECT_CONFIG
    power.on_running(machine, "changing processors", lambda domain: domain.setVcpusFlags(count, flags), limit_s=120.0)


def vcpus(machine: Machine) -> int:
    """How many the machine has, running or not."""
    return int(power.on_domain(machine, "counting processors", lambda domain: domain.vcpusFlags(0)))


def set_balloon(machine: Machine, memory_mib: int) -> None:
    flags = _libvirt_sdk.load().VIR_DOMAIN_AFFECT_LIVE
    power.on_running(machine, "setting the balloon", lambda domain: domain.setMemoryFlags(memory_mib << 10, flags))


def balloon_mib(machine: Machine) -> int:
    """What the guest has now, as QEMU tells libvirt."""
    return int(power.on_running(machine, "asking for the balloon", lambda domain: domain.memoryStats()["actual"])) >> 10


def resize_data(machine: Machine, size_mib: int) -> None:
    """Grow the data disk. Raises `HypervisorRefused` for a smaller size or without a data disk."""
    found = power.look(machine)
    mark = power.mark_of(machine)
    if not mark.spec.data_disk_mib:
        raise HypervisorRefused(f"{machine.name} has no data disk")
    if found.has_saved_state:
        raise HypervisorRefused(f"{machine.name} is asleep, and its memory holds the size", hint="start it first")
    now_mib = mark.resized_mib or mark.spec.data_disk_mib
    if size_mib < now_mib:
        raise HypervisorRefused(f"the data disk has {now_mib} MiB; the lab never shrinks one")
    power.change(machine, resized_mib=size_mib)
    if found.is_active:
        path = machine.path("data", mark.generation)
        flags = _libvirt_sdk.load().VIR_DOMAIN_BLOCK_RESIZE_BYTES
        power.on_domain(machine, "growing the data disk", lambda it: it.blockResize(path, size_mib << 20, flags))
    else:
        machine.site.pool.resize(machine.file("data", mark.generation), size_mib << 20)


def data_used_bytes(machine: Machine) -> int:
    """What the data disk occupies of the host's storage. Raises `HypervisorRefused` without a data disk."""
    mark = power.mark_of(machine)
    if not mark.spec.data_disk_mib:
        raise HypervisorRefused(f"{machine.name} has no data disk")
    return machine.site.pool.allocated(machine.file("data", mark.generation))


# ---------------------------------------------------------------------------------------------------------
# Devices


def _checked(machine: Machine, name: str) -> Any:
    mark = power.mark_of(machine)
    if not _NAME.fullmatch(name):
        raise HypervisorRefused(f"{name!r} cannot be the name of a plugged device: 1 to 20 letters, digits, - and _")
    if name in (*mark.plugged, *mark.cards, *mark.modules, "first", "root", "seed", "data"):
        raise HypervisorRefused(f"{machine.name} has a plugged device {name!r} already")
    return mark


def _attach(machine: Machine, wanted: xml.Element, what: str) -> None:
    sdk = _libvirt_sdk.load()
    document = xml.text(wanted)
    flags = sdk.VIR_DOMAIN_AFFECT_LIVE | sdk.VIR_DOMAIN_AFFECT_CONFIG
    power.on_running(machine, f"attaching {what}", lambda it: it.attachDeviceFlags(document, flags), again=False)


def _detach(machine: Machine, tag: str, alias: str, what: str) -> None:
    """Out of the machine that runs, and of what the next start is made from."""
    sdk = _libvirt_sdk.load()
    found = power.look(machine)
    if found.state in power.UP and found.place is not None and _element(_document(machine), tag, alias) is not None:
        events = found.place.link.events
        events.take_refused(machine.uuid, alias)

        def gone() -> bool:
            if events.take_refused(machine.uuid, alias):
                raise HypervisorRefused(f"the guest keeps {what}")
            return _element(_document(machine), tag, alias) is None

        _take_out(machine, alias, sdk.VIR_DOMAIN_AFFECT_LIVE, what)
        events.until(gone, what=f"the guest to let go of {what}", timeout_s=_GONE_S)
    _take_out(machine, alias, sdk.VIR_DOMAIN_AFFECT_CONFIG, what)


def _take_out(machine: Machine, alias: str, flags: int, what: str) -> None:
    try:
        power.on_domain(machine, f"detaching {what}", lambda domain: domain.detachDeviceAlias(alias, flags))
    except LibvirtRefused as reason:
        if reason.kind is not Kind.NO_DEVICE and "no device found with alias" not in reason.words:
            raise


def _document(machine: Machine) -> Any:
    return xml.read(power.on_domain(machine, "reading the domain", lambda domain: domain.XMLDesc(0)))


def _element(root: Any, tag: str, alias: str) -> Any:
    return next(
        (one for one in root.iterfind(f"devices/{tag}") if one.find(f"alias[@name='{alias}']") is not None), None
    )
