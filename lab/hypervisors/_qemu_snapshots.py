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
    _refuse_plugged(directory, "taken")
    refuse_unsaved(directory)
    with power.monitor_of(directory) as monitor:
        memory = mark.spec.profile.memory_mib << 20
        require_space(directory.path, memory, f"a snapshot of {mark.spec.name}")
        nodes = arguments.writable_nodes(power.hardware(mark, directory))
        where: dict[str, object] = {"tag": name, "vmstate": nodes[0], "devices": list(nodes)}
        try:
            monitor.job("snapshot-save", where, timeout_s=LIMIT_S)
        except HypervisorRefused as reason:
            raise saved_or(reason) from reason


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
    """Go back, and run. A machine that is off is started into the kept moment."""
    _refuse_plugged(directory, "restored")
    if name not in names(directory):
        raise HypervisorRefused(f"{directory.read().spec.name} has no snapshot {name!r}")
    if not _is_up(directory) or directory.read().saved:
        power.kill(directory)
        directory.forget_saved()
        power.launch(directory, extra=("-S",))
    with power.monitor_of(directory) as monitor:
        nodes = arguments.writable_nodes(power.hardware(directory.read(), directory))
        where: dict[str, object] = {"tag": name, "vmstate": nodes[0], "devices": list(nodes)}
        monitor.job("snapshot-load", where, timeout_s=LIMIT_S)
        if monitor.status() != "running":
            monitor.command("cont")


def delete(directory: Directory, name: str) -> None:
    """Raises `HypervisorRefused` when there is none of that name."""
    if name not in names(directory):
        raise HypervisorRefused(f"{directory.read().spec.name} has no snapshot {name!r}")
    if _is_up(directory):
        nodes = arguments.writable_nodes(power.hardware(directory.read(), directory))
        with power.monitor_of(directory) as monitor:
            monitor.job("snapshot-delete", {"tag": name, "devices": list(nodes)}, timeout_s=LIMIT_S)
        return
    for disk in writable_disks(directory, power.hardware(directory.read(), directory)):
        process.check(["qemu-img", "snapshot", "-q", "-d", name, disk], timeout_s=120)


def names(directory: Directory) -> Sequence[str]:
    """Every snapshot, oldest first; asked of QEMU while it runs, of the disk while it does not."""
    if _is_up(directory):
        with power.monitor_of(directory) as monitor:
            found = _of_node(monitor, "root")
    else:
        said = process.check(["qemu-img", "info", "--output=json", directory.root], timeout_s=60)
        found = json.loads(said).get("snapshots", ())
    return tuple(snapshot["name"] for snapshot in found)


def _of_node(monitor: Monitor, node: str) -> Iterable[Any]:
    nodes = monitor.command("query-named-block-nodes", {"flat": True})
    return next(entry["image"].get("snapshots", ()) for entry in nodes if entry["node-name"] == node)


def _is_up(directory: Directory) -> bool:
    running = directory.running()
    directory.read()  # a destroyed machine says so
    return running is not None and running.is_alive()


def _refuse_plugged(directory: Directory, done: str) -> None:
    mark = directory.read()
    plugged = [entry.name for entry in (*mark.disks, *mark.nics)]
    if plugged:
        raise HypervisorRefused(
            f"no snapshot can be {done} while {', '.join(plugged)} are plugged in", hint="detach them first"
        )


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
