"""lifecycle.save_restore: a saved guest goes on where it was."""

from __future__ import annotations

import secrets

from lab.suite import Capability, Guest, Machine, Reconnect, Snapshots, check, linux, unsupported, waiting, who_can

BACK_WITHIN_S = 120.0


@check("lifecycle.save_restore", needs=(Capability.SNAPSHOTS,), cold=True, timeout_s=400)
def test_processes_and_memory_survive(guest: Guest, machine: Machine, reconnect: Reconnect) -> None:
    """Catches a restore that boots instead of going on, loses memory, or leaves processes dead."""
    snapshots = who_can(machine, Snapshots)
    if not snapshots.snapshots_hold_memory():
        unsupported("snapshots of this hypervisor hold the disk and not the memory")
    name = f"lab-{secrets.token_hex(4)}"
    folder = "/dev/shm" if guest.run("test", "-d", "/dev/shm").status == 0 else "/tmp"
    file = f"{folder}/{name}"
    count = f"i=0; while [ -e {file} ]; do i=$((i + 1)); echo $i >{file}; sleep 0.2; done"
    linux.sh(guest, f"echo 0 >{file}; setsid sh -c '{count}' </dev/null >/dev/null 2>&1 &")
    boot = guest.boot_id
    waiting.until(lambda: _ticks(guest, file) > 2, what="the guest to count", timeout_s=20)
    saved = _ticks(guest, file)
    snapshots.snapshot(name)
    try:
        waiting.until(lambda: _ticks(guest, file) > saved + 5, what="the guest to count on", timeout_s=30)
        snapshots.restore(name)
        reconnect(BACK_WITHIN_S)
        linux.set_clock(guest)
    finally:
        snapshots.delete_snapshot(name)
    assert guest.boot_id == boot, "the guest booted instead of going on where it was"
    first = _ticks(guest, file)
    assert first >= saved, f"the counter in memory stood at {saved} before and is at {first} after the restore"
    waiting.until(lambda: _ticks(guest, file) > first, what="the saved process to go on", timeout_s=20)
    guest.check("rm", file)


def _ticks(guest: Guest, file: str) -> int:
    text = guest.check("cat", file)
    return int(text) if text else 0
