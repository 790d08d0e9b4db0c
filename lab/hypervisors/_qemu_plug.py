"""Disks and network cards that come and go while a QEMU machine runs, and its data disk that grows.

A plugged device is a part of the machine until it is detached: the machine has it after a power cycle too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import partial

from lab import process
from lab.errors import HypervisorRefused, LabError, NotSupported
from lab.hypervisors import _qemu_arguments as arguments
from lab.hypervisors import _qemu_networks as networks
from lab.hypervisors import _qemu_plugged as devices
from lab.hypervisors import _qemu_power as power
from lab.hypervisors import _qemu_snapshots as snapshots
from lab.hypervisors import _qemu_unplug as unplug
from lab.hypervisors._qemu_monitor import Monitor
from lab.hypervisors._qemu_plugged import Plugged
from lab.hypervisors._qemu_store import Directory, Mark, require_space

# virtio-blk's serial number has 20 bytes (virtio 1.2, 5.2.6.1), and the name is also part of a file's name.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,19}")
_RELEASE_S = 30.0
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


def attach_disk(directory: Directory, name: str, size_mib: int) -> None:
    """A new empty disk on the bus of the root disk. Raises `NotSupported` for SATA, `HypervisorRefused`."""
    mark = _checked(directory, name)
    if mark.spec.profile.disk == "sata":
        raise NotSupported("QEMU's AHCI controller takes no disks while the machine runs")
    path = directory.plugged(name)
    require_space(directory.path, 1 << 20, f"disk {name}")
    with power.monitor_of(directory) as monitor:
        plugged = Plugged(name, _free_place(monitor, mark, disk=True))
        power.make_disks([["qemu-img", "create", "-q", "-f", "qcow2", str(path), f"{size_mib}M"]])
        # The mark first: what is written down can be cleaned up by anybody.
        directory.change(disks=(*mark.disks, plugged))
        try:
            monitor.command("blockdev-add", arguments.blockdev(plugged.node, path, "qcow2"))
            monitor.command("device_add", devices.disk(mark.spec.profile, plugged))
        except LabError:
            _forget_disk(directory, monitor, plugged)
            raise


def detach_disk(directory: Directory, name: str) -> None:
    """Returns when the guest let go of it. Raises `WaitedTooLong` when the guest keeps it, `HypervisorRefused`."""
    plugged = _named(directory.read().disks, name)
    snapshots.refuse_held(directory, name)
    with power.monitor_of(directory) as monitor:
        unplug.take_out(monitor, plugged.device, f"disk {name}")
        _forget_disk(directory, monitor, plugged)


def _forget_disk(directory: Directory, monitor: Monitor, plugged: Plugged) -> None:
    # A SCSI disk is gone from the bus before the guest's last commands to it have ended.
    released = partial(_release, monitor, plugged.node)
    monitor.until(released, what=f"QEMU to let go of disk {plugged.name}", timeout_s=_RELEASE_S)
    directory.plugged(plugged.name).unlink(missing_ok=True)
    directory.change(disks=_without(directory.read().disks, plugged.name))


def _release(monitor: Monitor, node: str) -> bool:
    nodes = monitor.command("query-named-block-nodes", {"flat": True})
    if all(known["node-name"] != node for known in nodes):
        return True
    try:
        monitor.command("blockdev-del", {"node-name": node})
    except HypervisorRefused as reason:
        if "is in use" in reason.what:
            return False
        raise
    return True


def attach_nic(directory: Directory, name: str, mac: str, *, shared: str = "") -> None:
    """A card of the profile's model, on a network of its own or on the one called `shared`. Raises `HypervisorRefused`.

    A shared network exists as long as a machine is on it; each card has a cable to it, a process that ends with QEMU.
    """
    mark = _checked(directory, name)
    if not _MAC.fullmatch(mac):
        raise HypervisorRefused(f"{mac!r} is not a MAC address", hint="write it as 52:54:00:00:00:01")
    with power.monitor_of(directory) as monitor:
        plugged = Plugged(name, _free_place(monitor, mark), mac, _free_network(mark), shared)
        directory.change(nics=(*mark.nics, plugged))
        try:
            monitor.command("netdev_add", devices.network(plugged))
            monitor.command("device_add", devices.card(mark.spec.profile, plugged))
            if shared:
                networks.join(directory, monitor, plugged)
        except LabError:
            _forget_nic(directory, monitor, plugged)
            raise


def detach_nic(directory: Directory, name: str) -> None:
    """Returns when the guest let go of it. Raises `WaitedTooLong` when the guest keeps it."""
    plugged = _named(directory.read().nics, name)
    with power.monitor_of(directory) as monitor:
        unplug.take_out(monitor, plugged.device, f"network card {name}")
        _forget_nic(directory, monitor, plugged)


def _forget_nic(directory: Directory, monitor: Monitor, plugged: Plugged) -> None:
    if plugged.shared:
        networks.leave(monitor, plugged)
    networks.forget(monitor, plugged.node)
    directory.change(nics=_without(directory.read().nics, plugged.name))


def resize_data(directory: Directory, size_mib: int) -> None:
    """Grow the data disk. Raises `HypervisorRefused` for a smaller size or without a data disk."""
    mark = directory.read()
    if not mark.spec.data_disk_mib:
        raise HypervisorRefused(f"{mark.spec.name} has no data disk")
    if mark.saved:
        raise HypervisorRefused(f"{mark.spec.name} is asleep, and its memory holds the size", hint="start it first")
    said = process.check(["qemu-img", "info", "-U", "--output=json", directory.data], timeout_s=60)
    now_mib = int(json.loads(said)["virtual-size"]) >> 20
    if size_mib < now_mib:
        raise HypervisorRefused(f"the data disk has {now_mib} MiB; the lab never shrinks one")
    if _is_up(directory) and mark.spec.profile.disk == "nvme":
        # hw/nvme/ns.c, QEMU 7.2: the namespace takes its disk without sharing "resize".
        raise NotSupported("QEMU's NVMe disks do not grow while the machine runs")
    directory.change(resized=True)
    if _is_up(directory):
        with power.monitor_of(directory) as monitor:
            monitor.command("block_resize", {"node-name": "data", "size": size_mib << 20})
    else:
        process.check(["qemu-img", "resize", "-q", "-f", "qcow2", directory.data, f"{size_mib}M"], timeout_s=60)


def data_used_bytes(directory: Directory) -> int:
    """What the data disk occupies of this machine's disk. Raises `HypervisorRefused` without a data disk."""
    if not directory.data.is_file():
        raise HypervisorRefused(f"{directory.read().spec.name} has no data disk")
    return directory.data.stat().st_blocks * 512  # stat(2): st_blocks counts 512 bytes, whatever the block size


def _is_up(directory: Directory) -> bool:
    running = directory.running()
    return running is not None and running.is_alive()


def _checked(directory: Directory, name: str) -> Mark:
    mark = directory.read()
    if not _NAME.fullmatch(name):
        raise HypervisorRefused(f"{name!r} cannot be the name of a plugged device: 1 to 20 letters, digits, - and _")
    if any(plugged.name == name for plugged in (*mark.disks, *mark.nics)):
        raise HypervisorRefused(f"{mark.spec.name} has a plugged device {name!r} already")
    return mark


def _named(plugged: Sequence[Plugged], name: str) -> Plugged:
    for entry in plugged:
        if entry.name == name:
            return entry
    raise HypervisorRefused(f"nothing called {name!r} is plugged in")


def _without(plugged: Sequence[Plugged], name: str) -> tuple[Plugged, ...]:
    return tuple(entry for entry in plugged if entry.name != name)


def _free_place(monitor: Monitor, mark: Mark, *, disk: bool = False) -> str:
    profile = mark.spec.profile
    taken = {entry.port for entry in (*mark.disks, *mark.nics)}
    if disk and profile.disk == "pvscsi":
        # The machine's own disks are the first three of the bus.
        return next(place for place in (f"scsi.{number}" for number in range(3, 64)) if place not in taken)
    if profile.chipset == "q35":
        free = [port for port in devices.ports(profile) if port not in taken]
        if not free:
            raise HypervisorRefused(f"all {devices.HOTPLUG_PORTS} ports for plugged devices are taken")
        return free[0]
    (bus,) = (bus for bus in monitor.command("query-pci") if bus["bus"] == 0)
    used = {device["slot"] for device in bus["devices"]} | {
        int(place[4:], 16) for place in taken if place.startswith("pci.")
    }
    slots = [slot for slot in range(31, 0, -1) if slot not in used]
    if not slots:
        raise HypervisorRefused("all slots of the PCI bus are taken")
    return f"pci.{slots[0]:x}"


def _free_network(mark: Mark) -> int:
    taken = {entry.network for entry in mark.nics}
    return next(number for number in range(3, 250) if number not in taken)
