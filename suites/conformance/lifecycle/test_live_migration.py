"""lifecycle.live_migration: a guest moves while it runs and does not notice."""

from __future__ import annotations

import time

from lab.suite import (
    Capability,
    Guest,
    Machine,
    MachineState,
    Measurements,
    MigratesLive,
    Reconnect,
    check,
    linux,
    unsupported,
    who_can,
    witness,
)

BACK_WITHIN_S = 60.0
MOVES_WITHIN_S = 240.0
# What the guest's clock may lose beside the time that its processors stood still: two round trips.
CLOCK_SLACK_S = 3.0


@check("lifecycle.live_migration", needs=(Capability.LIVE_MIGRATION,), defect=True, cold=True, timeout_s=500)
def test_guest_moves_with_disks_that_both_places_share(
    guest: Guest, machine: Machine, reconnect: Reconnect, measured: Measurements
) -> None:
    """Catches a move that boots, loses memory, processes, disks or time, or goes nowhere."""
    _move(guest, machine, reconnect, measured, with_storage=False)


@check("lifecycle.live_migration", needs=(Capability.LIVE_MIGRATION,), defect=True, cold=True, timeout_s=500)
def test_guest_moves_with_its_disks(
    guest: Guest, machine: Machine, reconnect: Reconnect, measured: Measurements
) -> None:
    """Catches a move that leaves part of the disks behind, or sends them while they change and loses the changes."""
    _move(guest, machine, reconnect, measured, with_storage=True)


def _move(guest: Guest, machine: Machine, reconnect: Reconnect, measured: Measurements, *, with_storage: bool) -> None:
    moves = who_can(machine, MigratesLive)
    destinations = moves.destinations()
    if not destinations:
        unsupported("this host has nowhere to move a machine to")
    disk = linux.data_disk(guest, machine)
    differs = linux.write_and_read_back(guest, disk, mib=2)
    assert not differs, f"what was read from {disk.name} is not what was written: {differs}"
    content = linux.digest(guest, disk, mib=2)
    seen = witness.place(guest)
    before, offset = seen.count(), _offset(guest)
    came_from = moves.place()
    took = moves.migrate_live(destinations[0], with_storage=with_storage, timeout_s=MOVES_WITHIN_S)
    reconnect(BACK_WITHIN_S)
    measured.add("migration", took.seconds, "s", better="lower")
    measured.add("downtime", took.downtime_ms, "ms", better="lower")
    measured.add("transferred", took.transferred_bytes / (1 << 20), "MiB", better="lower")
    assert moves.place() != came_from, f"the machine moved and is still at {came_from}"
    assert machine.state() is MachineState.RUNNING, f"moved, and the hypervisor says {machine.state()}"
    least = witness.MEMORY_MIB << 20  # random data, which nothing compresses
    assert took.transferred_bytes >= least, (
        f"{took.transferred_bytes} bytes were moved; {least} of the guest's memory alone cannot be made smaller"
    )
    seen.assert_survived(at_least=before)
    lost = offset - _offset(guest)
    measured.add("clock_lost", lost, "s", better="none")
    allowed = took.downtime_ms / 1000 + CLOCK_SLACK_S
    assert abs(lost) <= allowed, f"the guest's clock lost {lost:.1f} s over the move; allowed {allowed:.1f}"
    assert linux.digest(guest, disk, mib=2) == content, f"the content of {disk.name} is not what it was"
    differs = linux.write_and_read_back(guest, disk, mib=2, at_mib=4)
    assert not differs, f"what was read from {disk.name} after the move is not what was written: {differs}"
    seen.leave()
    linux.set_clock(guest)


def _offset(guest: Guest) -> float:
    """The guest's clock against the controller's, in seconds, to about one."""
    before = time.time()
    told = float(guest.check("date", "+%s"))
    return told - (before + time.time()) / 2
