"""lifecycle.save_restore: a saved guest goes on where it was."""

from __future__ import annotations

import time

from lab.suite import (
    Capability,
    Guest,
    Machine,
    MachineState,
    Measurements,
    Reconnect,
    SavesState,
    check,
    linux,
    waiting,
    who_can,
    witness,
)

ASLEEP_S = 3.0
BACK_WITHIN_S = 120.0
BOOTS_WITHIN_S = 300.0


@check("lifecycle.save_restore", needs=(Capability.SAVED_STATE,), cold=True, timeout_s=400, defect=True)
def test_processes_and_memory_survive(
    guest: Guest, machine: Machine, reconnect: Reconnect, measured: Measurements
) -> None:
    """Catches a restore that boots instead of going on, loses memory or disk, or leaves processes dead."""
    saves = who_can(machine, SavesState)
    seen = witness.place(guest)
    before = seen.count()
    start = time.monotonic()
    saves.save_state()
    measured.add("save", time.monotonic() - start, "s", better="lower")
    try:
        assert machine.state() is MachineState.STOPPED, f"saved, and the hypervisor says {machine.state()}"
        assert saves.has_saved_state(), "the machine was saved and the hypervisor knows of no saved state"
        waiting.pause(ASLEEP_S)
    finally:
        start = time.monotonic()
        machine.start()
        reconnect(BACK_WITHIN_S)
    measured.add("restore", time.monotonic() - start, "s", better="lower")
    linux.set_clock(guest)  # it stood still as well
    seen.assert_survived(at_least=before)
    assert not saves.has_saved_state(), "the state was used and is still kept: a second start would go back in time"
    disk = linux.data_disk(guest, machine)
    differs = linux.write_and_read_back(guest, disk, mib=1)
    assert not differs, f"what was read from {disk.name} after the restore is not what was written: {differs}"
    seen.leave()


@check("lifecycle.save_restore", needs=(Capability.SAVED_STATE,), cold=True, timeout_s=500, defect=True)
def test_discarded_state_is_not_gone_back_to(guest: Guest, machine: Machine, reconnect: Reconnect) -> None:
    """Catches a state that is kept although it was discarded: memory of yesterday over the disk of today."""
    saves = who_can(machine, SavesState)
    boot = guest.boot_id
    linux.sh(guest, "echo written >/root/lab-discarded && sync")
    saves.save_state()
    try:
        saves.discard_saved_state()
        assert not saves.has_saved_state(), "the saved state was discarded and is still there"
    finally:
        machine.start()
        reconnect(BOOTS_WITHIN_S)
    assert guest.boot_id != boot, "the guest went on where it was although its saved state was discarded"
    text = linux.sh(guest, "cat /root/lab-discarded; rm /root/lab-discarded")
    assert text == "written", f"what was written before reads {text!r} after the boot"
