"""Processors and memory modules that come and go while a QEMU machine runs, within what its profile leaves room for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lab.errors import HypervisorRefused, LabError, NotSupported, WaitedTooLong
from lab.hypervisors import _qemu_plugged as devices
from lab.hypervisors import _qemu_power as power
from lab.hypervisors import _qemu_unplug as unplug
from lab.hypervisors._qemu_monitor import Monitor
from lab.hypervisors._qemu_plugged import Module, Processor
from lab.hypervisors._qemu_store import Directory, Mark

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,19}")


def vcpus(directory: Directory) -> int:
    """How many the machine has, running or not."""
    mark = directory.read()
    return mark.spec.profile.vcpus + len(mark.processors)


def set_vcpus(directory: Directory, count: int) -> None:
    """Plug in or out one after the other; the last that came goes first. Raises `HypervisorRefused`, `NotSupported`."""
    profile = directory.read().spec.profile
    most = profile.max_vcpus or profile.vcpus
    if not profile.vcpus <= count <= most:
        raise HypervisorRefused(
            f"profile {profile.name} allows {profile.vcpus} to {most} processors, not {count}",
            hint="max_vcpus of the profile leaves room for more" if count > most else "",
        )
    if count < vcpus(directory):
        _refuse_removal(directory.read())
    with power.monitor_of(directory) as monitor:
        while vcpus(directory) < count:
            _add_processor(directory, monitor)
        while vcpus(directory) > count:
            _remove_processor(directory, monitor)


def _refuse_removal(mark: Mark) -> None:
    # softmmu/physmem.c, QEMU 7.2, cpu_address_space_init: the processor's memory listener (tcg_commit) is never
    # unregistered, so the next change of the guest's memory map writes to what was freed. Seen here: "corrupted
    # double-linked list" at the first memory module after a processor had gone.
    if mark.accelerator == "tcg":
        raise NotSupported(
            "QEMU's software emulation goes on to use the memory of a processor that was taken out, and crashes later"
        )


def _add_processor(directory: Directory, monitor: Monitor) -> None:
    mark = directory.read()
    places = [_processor(entry) for entry in monitor.command("query-hotpluggable-cpus") if "qom-path" not in entry]
    plugged = min(places, key=lambda place: (place.socket, place.core, place.thread))
    # The mark first: what is written down can be cleaned up by anybody.
    directory.change(processors=(*mark.processors, plugged))
    try:
        monitor.command("device_add", devices.processor(plugged))
    except LabError:
        directory.change(processors=mark.processors)
        raise


def _remove_processor(directory: Directory, monitor: Monitor) -> None:
    *others, plugged = directory.read().processors
    _take_out(monitor, plugged.device, f"processor {len(others) + directory.read().spec.profile.vcpus}")
    directory.change(processors=tuple(others))


def _processor(entry: Mapping[str, Any]) -> Processor:
    place = entry["props"]
    return Processor(entry["type"], place["socket-id"], place["core-id"], place["thread-id"])


def attach_memory(directory: Directory, name: str, size_mib: int) -> None:
    """A module of whole blocks of 128 MiB. Raises `HypervisorRefused` beyond the profile's `max_memory_mib`."""
    mark = directory.read()
    slot = _refuse_module(mark, name, size_mib)
    with power.monitor_of(directory) as monitor:
        plugged = Module(name, size_mib, slot)
        directory.change(modules=(*mark.modules, plugged))
        try:
            monitor.command("object-add", devices.memory(plugged))
            monitor.command("device_add", devices.module(plugged))
        except LabError:
            _forget(directory, monitor, plugged)
            raise
        directory.change(modules=(*mark.modules, Module(name, size_mib, slot, _address(monitor, plugged))))


def detach_memory(directory: Directory, name: str) -> None:
    """Returns when the guest let go of it. Raises `HypervisorRefused` when it does not."""
    found = [module for module in directory.read().modules if module.name == name]
    if not found:
        raise HypervisorRefused(f"no memory module called {name!r} is plugged in")
    with power.monitor_of(directory) as monitor:
        _take_out(monitor, found[0].device, f"memory module {name}")
        _forget(directory, monitor, found[0])


def _refuse_module(mark: Mark, name: str, size_mib: int) -> int:
    """The slot of a new module. Raises `HypervisorRefused`, `NotSupported`."""
    profile = mark.spec.profile
    if not _NAME.fullmatch(name):
        raise HypervisorRefused(f"{name!r} cannot be the name of a memory module: 1 to 20 letters, digits, - and _")
    if any(module.name == name for module in mark.modules):
        raise HypervisorRefused(f"{mark.spec.name} has a memory module {name!r} already")
    if size_mib <= 0 or size_mib % devices.MODULE_MIB:
        raise HypervisorRefused(f"a memory module has a multiple of {devices.MODULE_MIB} MiB, not {size_mib}")
    most = profile.max_memory_mib or profile.memory_mib
    total = profile.memory_mib + sum(module.size_mib for module in mark.modules) + size_mib
    if total > most:
        raise HypervisorRefused(
            f"profile {profile.name} allows {most} MiB, not {total}",
            hint="max_memory_mib of the profile leaves room for more",
        )
    taken = {module.slot for module in mark.modules}
    free = [slot for slot in range(devices.MEMORY_SLOTS) if slot not in taken]
    if not free:
        raise HypervisorRefused(f"all {devices.MEMORY_SLOTS} slots for memory modules are taken")
    return free[0]


def _address(monitor: Monitor, plugged: Module) -> int:
    modules = (entry["data"] for entry in monitor.command("query-memory-devices"))
    return next(int(module["addr"]) for module in modules if module.get("id") == plugged.device)


def _forget(directory: Directory, monitor: Monitor, plugged: Module) -> None:
    objects = monitor.command("qom-list", {"path": "/objects"})
    if any(entry["name"] == plugged.memory for entry in objects):
        monitor.command("object-del", {"id": plugged.memory})
    others = tuple(module for module in directory.read().modules if module.name != plugged.name)
    directory.change(modules=others)


def _take_out(monitor: Monitor, device: str, what: str) -> None:
    try:
        unplug.take_out(monitor, device, what)
    except WaitedTooLong as reason:
        raise HypervisorRefused(f"the guest keeps {what}: it says nothing, {reason.what}") from reason
