"""Snapshots of a QEMU machine: disks and memory in its own qcow2 files, of one moment.

They are QEMU's internal snapshots, taken as jobs over QMP; the root disk's file takes the memory. All writable
disks take part, the firmware's variables too, or a restored guest would see disks of different times.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lab import process
from lab.errors import HypervisorRefused, NotSupported
from lab.hypervisors import _qemu_arguments as arguments
from lab.hypervisors import _qemu_power as power
from lab.hypervisors._qemu_arguments import Hardware
from lab.hypervisors._qemu_monitor import Monitor
from lab.hypervisors._qemu_plugged import Equipment
from lab.hypervisors._qemu_store import Directory, require_space

LIMIT_S = 300.0
_LONGEST_NAME = 100
# migration.c: "State blocked by non-migratable device '0000:00:03.0/nvme'"
_NOT_SAVED = "non-migratable device"


def take(directory: Directory, name: str) -> None:
    """Keep disks and memory of a machine that is up. Raises `HypervisorRefused`, `NotSupported`, `LabDiskFull`."""
    if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable():
        raise HypervisorRefused(f"{name!r} cannot be the name of a snapshot: 1 to {_LONGEST_NAME} printable characters")
    mark = directory.read()
    refuse_unsaved(directory)
    with power.monitor_of(directory) as monitor:
        memory = mark.spec.profile.memory_mib << 20
        require_space(directory.path, memory, f"a snapshot of {mark.spec.name}")
        try:
            monitor.job("snapshot-save", _where(directory, name), timeout_s=LIMIT_S)
        except HypervisorRefused as reason:
            raise saved_or(reason) from reason
        directory.change(kept={**mark.kept, name: directory.equipment()})


def _where(directory: Directory, name: str) -> dict[str, object]:
    nodes = list(disks(directory))
    return {"tag": name, "vmstate": nodes[0], "devices": nodes}


def refuse_unsaved(directory: Directory) -> None:
    """Raises `NotSupported` for hardware whose state QEMU cannot save."""
    spec = directory.read().spec
    if spec.profile.disk == "nvme":
        # hw/nvme/ctrl.c, QEMU 7.2: .unmigratable = 1
        raise NotSupported(
            "QEMU cannot save the state of an NVMe controller: no snapshots, sleep, live migration or warm copies"
        )


def saved_or(reason: HypervisorRefused) -> HypervisorRefused | NotSupported:
    """The right error for a state that could not be saved."""
    return NotSupported(f"QEMU cannot save this hardware: {reason.what}") if _NOT_SAVED in reason.what else reason


def restore(directory: Directory, name: str) -> None:
    """Go back, and run. A machine that is off is started into the kept moment.

    So is one into which other things are plugged now; what came after the snapshot is no part of it any more.
    """
    if name not in names(directory):
        raise HypervisorRefused(f"{directory.read().spec.name} has no snapshot {name!r}")
    mark = directory.read()
    then, now = mark.kept.get(name, Equipment()), directory.equipment()
    if not _is_up(directory) or mark.saved or then != now:
        power.kill(directory)
        directory.forget_saved()
        directory.change(**vars(then))
        for plugged in set(now.disks) - set(then.disks):
            directory.plugged(plugged.name).unlink(missing_ok=True)
        power.launch(directory, extra=("-S",))
    with power.monitor_of(directory) as monitor:
        monitor.job("snapshot-load", _where(directory, name), timeout_s=LIMIT_S)
        if monitor.status() != "running":
            monitor.command("cont")


def delete(directory: Directory, name: str) -> None:
    """Raises `HypervisorRefused` when there is none of that name."""
    if name not in names(directory):
        raise HypervisorRefused(f"{directory.read().spec.name} has no snapshot {name!r}")
    if _is_up(directory):
        with power.monitor_of(directory) as monitor:
            monitor.job("snapshot-delete", {"tag": name, "devices": list(disks(directory))}, timeout_s=LIMIT_S)
    else:
        for disk in disks(directory).values():
            if name in _of_file(disk):
                process.check(["qemu-img", "snapshot", "-q", "-d", name, disk], timeout_s=120)
    directory.change(kept={other: kept for other, kept in directory.read().kept.items() if other != name})


def names(directory: Directory) -> Sequence[str]:
    """Every snapshot, oldest first; asked of QEMU while it runs, of the disk while it does not."""
    if _is_up(directory):
        with power.monitor_of(directory) as monitor:
            return tuple(snapshot["name"] for snapshot in _of_node(monitor, "root"))
    return _of_file(directory.root)


def _of_file(disk: Path) -> Sequence[str]:
    said = process.check(["qemu-img", "info", "--output=json", disk], timeout_s=60)
    return tuple(snapshot["name"] for snapshot in json.loads(said).get("snapshots", ()))


def _of_node(monitor: Monitor, node: str) -> Iterable[Any]:
    nodes = monitor.command("query-named-block-nodes", {"flat": True})
    return next(entry["image"].get("snapshots", ()) for entry in nodes if entry["node-name"] == node)


def _is_up(directory: Directory) -> bool:
    running = directory.running()
    directory.read()  # a destroyed machine says so
    return running is not None and running.is_alive()


def refuse_held(directory: Directory, disk: str) -> None:
    """Raises `HypervisorRefused` for a plugged disk without which a snapshot could not be restored."""
    for name, kept in directory.read().kept.items():
        if any(plugged.name == disk for plugged in kept.disks):
            raise HypervisorRefused(f"snapshot {name!r} holds disk {disk}", hint="delete the snapshot first")


def writable_disks(directory: Directory, hardware: Hardware) -> Sequence[Path]:
    """The machine's own disk files that hold its state."""
    files = {
        "root": directory.root,
        "seed": directory.seed_overlay,
        "data": directory.data,
        "firmware-variables": directory.variables,
    }
    return [files[node] for node in arguments.writable_nodes(hardware)]


def disks(directory: Directory) -> Mapping[str, Path]:
    """All writable disks by their block nodes, those that were plugged in too."""
    hardware = power.hardware(directory.read(), directory)
    own = zip(arguments.writable_nodes(hardware), writable_disks(directory, hardware), strict=True)
    return {**dict(own), **{plugged.node: path for plugged, path in hardware.disks}}
