"""Live migration of a QEMU machine from its process to another one on this machine, at another place of its directory.

The new process waits, paused, while memory comes to it. One write of the mark says that the machine is there; until
then the old process is the machine, from then on the new one is, and the other one is ended. The new one runs
nothing before the old one and its keeper are gone. So a kill at any time leaves one machine: `settle`, which every
later look at the machine begins with, takes away the other process and lets the right one go on.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from lab import log, process
from lab.contracts import MachineState, Migration
from lab.errors import HypervisorRefused, MachineVanished, WaitedTooLong
from lab.hypervisors import _qemu_memory as memory
from lab.hypervisors import _qemu_mirror as mirror
from lab.hypervisors import _qemu_ports as ports
from lab.hypervisors import _qemu_power as power
from lab.hypervisors import _qemu_snapshots as snapshots
from lab.hypervisors._qemu_monitor import Monitor, talk
from lab.hypervisors._qemu_store import PLACES, Directory, Move

T = TypeVar("T")
_CANCEL_S = 30.0
_PORT_S = 5.0
_UNBOUND = 1 << 40  # bytes a second
# What belongs to a place and not to the machine, beside the disks.
_OF_A_PLACE = ("*.sock", "process.json", "events.json", "console.in", "stderr.log*")
_SOURCE_ONLY = ("auto-converge", "pause-before-switchover")
_log = log.get(__name__)


def place(directory: Directory) -> str:
    """Where the machine is now."""
    return PLACES[directory.read().place]


def destinations(directory: Directory) -> Sequence[str]:
    """The places where it is not; none while it does not run."""
    if power.state(directory) is not MachineState.RUNNING:
        return ()
    here = place(directory)
    return tuple(name for name in PLACES.values() if name != here)


def migrate(directory: Directory, destination: str, *, with_storage: bool, timeout_s: float) -> Migration:
    """Move and go on there. Raises `HypervisorRefused`, `NotSupported`; the machine then runs on where it was."""
    settle(directory)
    _refuse(directory, destination, with_storage)
    folder = next(folder for folder, name in PLACES.items() if name == destination)
    there, began = directory.at(folder), time.monotonic()
    us = os.getpid()
    old = directory.read().place
    here = directory.at(old)
    directory.change(move=Move(folder, False, us, process.start_time(us) or 0))
    try:
        _prepare(here, there, with_storage)
        power.launch_beside(there)
        told = _carry(here, there, with_storage, began + timeout_s)
        directory.change(place=folder, move=Move(old, True, us, process.start_time(us) or 0))
    except WaitedTooLong as reason:
        _stay(directory)
        raise HypervisorRefused(f"the migration did not end within {timeout_s:.0f} s: {reason.what}") from reason
    except BaseException:
        _stay(directory)
        raise
    standstill = told.downtime_ms + (_arrive(directory) - told.seconds) * 1000
    _log.info("machine.migrated", machine=directory.path.name, to=destination, downtime_ms=round(standstill))
    return Migration(time.monotonic() - began, standstill, told.transferred_bytes)


def _refuse(directory: Directory, destination: str, with_storage: bool) -> None:
    mark = directory.read()
    name = mark.spec.name
    snapshots.refuse_unsaved(directory)
    if destination not in destinations(directory):
        known = ", ".join(destinations(directory)) or "nowhere, it does not run"
        raise HypervisorRefused(f"{name} cannot be brought to {destination!r} (it can be brought to {known})")
    if with_storage and snapshots.names(directory):
        raise HypervisorRefused(
            f"{name} has snapshots, which a copy of its disks would not have", hint="delete them, or share the disks"
        )


def _prepare(directory: Directory, there: Directory, with_storage: bool) -> None:
    _clear(there)
    there.here.mkdir(mode=0o700, exist_ok=True)
    if with_storage:
        mirror.prepare(directory, there)
    else:
        mirror.link(directory, there)


def _carry(directory: Directory, there: Directory, with_storage: bool, deadline: float) -> Migration:
    """Bring memory and disks over. In the answer, `seconds` is the moment at which all had left."""
    copied = 0
    with power.monitor_of(directory) as source, talk(there.here) as target:
        _connect(source, target)
        if with_storage:
            mirror.begin(directory, there, source, target)
            _until(source, lambda: mirror.is_level(directory, source), "the disks to be copied", deadline)
        source.command("migrate", {"uri": "fd:leaving"})

        def at_rest() -> str | None:
            status = str(source.command("query-migrate").get("status"))
            return status if status in ("pre-switchover", "failed", "cancelled", "completed") else None

        _until(source, at_rest, "the memory to be copied", deadline)
        if with_storage and at_rest() == "pre-switchover":
            copied = mirror.finish(directory, source, target)
        if at_rest() == "pre-switchover":
            source.command("migrate-continue", {"state": "pre-switchover"})
        told = _until(source, lambda: memory.ended(source), "the machine to leave", deadline)
        left = time.monotonic()
        if told["status"] != "completed":
            said = told.get("error-desc", told["status"])
            raise HypervisorRefused(f"QEMU could not migrate {directory.path.name}: {said}")
        _until(target, lambda: target.status() != "inmigrate", "the machine to arrive", deadline)
    return Migration(left, float(told.get("downtime", 0)), int(told["ram"]["transferred"]) + copied)


def _connect(source: Monitor, target: Monitor) -> None:
    """A line between the two, on which nobody else can listen, and how to use it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        source.give_file("leaving", ours.fileno())
        target.give_file("arriving", theirs.fileno())
    # A busy guest is slowed down until its memory comes through, and both agree on the end before one stops.
    _capabilities(source, True, _SOURCE_ONLY)
    _capabilities(source, True)
    _capabilities(target, True)
    source.command("migrate-set-parameters", {"max-bandwidth": _UNBOUND})
    target.command("migrate-incoming", {"uri": "fd:arriving"})


def _capabilities(monitor: Monitor, state: bool, names: Sequence[str] = ("return-path",)) -> None:
    wanted = [{"capability": name, "state": state} for name in names]
    monitor.command("migrate-set-capabilities", {"capabilities": wanted})


def _until(monitor: Monitor, probe: Callable[[], T | None], what: str, deadline: float) -> T:
    return monitor.until(probe, what=what, timeout_s=max(0.0, deadline - time.monotonic()))


# ---------------------------------------------------------------------------------------------------------
# Either of the two is the machine


def settle(directory: Directory) -> None:
    """Finish a migration whose process was killed, on that side on which the machine is. Raises `HypervisorRefused`."""
    move = directory.read().move
    if move is None or process.is_alive(move.pid, move.started):
        return
    if move.arrived:
        _arrive(directory)
    else:
        _stay(directory)


def _stay(directory: Directory) -> None:
    """The machine is where it was: end the other process, let this one go on."""
    mark = directory.read()
    if mark.move is None:
        return
    other = directory.at(mark.move.other)
    power.kill_at(other)
    running = directory.running()
    if mark.wanted == "running" and running is not None and running.is_alive():
        try:
            with power.monitor_of(directory) as monitor:
                _go_on(monitor)
        except MachineVanished as reason:
            _log.warning("machine.vanished", machine=directory.path.name, reason=reason)
    _clear(other)
    directory.change(move=None)


def _go_on(source: Monitor) -> None:
    if source.command("query-migrate").get("status", "none") not in ("none", "completed", "failed", "cancelled"):
        source.command("migrate_cancel")
        source.until(lambda: memory.ended(source), what="QEMU to stop migrating", timeout_s=_CANCEL_S)
    mirror.clean(source)
    _capabilities(source, False, (*_SOURCE_ONLY, "return-path"))
    if source.status() != "running":
        source.command("cont")


def _arrive(directory: Directory) -> float:
    """The machine is there: end the process that it left, then let it go on, at the ports where it was reached.

    When it went on, by `time.monotonic`.
    """
    mark, went_on = directory.read(), time.monotonic()
    if mark.move is None:
        return went_on
    other = directory.at(mark.move.other)
    power.kill_at(other)  # and its keeper, which has then written the last of the console
    running = directory.running()
    if mark.wanted == "running" and running is not None and running.is_alive():
        with power.monitor_of(directory) as monitor:
            if monitor.status() != "running":
                monitor.command("cont")
            went_on = time.monotonic()
            _capabilities(monitor, False)
            forwards = ports.again(monitor, mark.forwards, patience_s=_PORT_S)
            directory.change(forwards=forwards)
    noted = other.events()
    directory.change(move=None, resets=mark.resets + noted.resets, fired=mark.fired + noted.fired)
    _clear(other)
    return went_on


def _clear(there: Directory) -> None:
    """Nothing stays at a place where the machine is not."""
    if there.here != there.path:
        shutil.rmtree(there.here, ignore_errors=True)
        return
    found = [*snapshots.disks(there).values(), *(path for pattern in _OF_A_PLACE for path in there.here.glob(pattern))]
    for path in found:
        path.unlink(missing_ok=True)
