"""lifecycle.snapshot: what a machine was can be had back."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from lab.suite import Capability, Guest, Machine, Reconnect, Snapshots, check, linux, unsupported, who_can, witness

BACK_WITHIN_S = 240.0


@contextmanager
def _snapshot(guest: Guest, snapshots: Snapshots) -> Iterator[str]:
    """A snapshot that is gone again at the end."""
    name = f"lab-{secrets.token_hex(4)}"
    guest.check("sync")
    snapshots.snapshot(name)
    try:
        yield name
    finally:
        snapshots.delete_snapshot(name)


@check("lifecycle.snapshot", needs=(Capability.SNAPSHOTS,), cold=True, timeout_s=500, defect=True)
def test_restore_takes_back_what_came_after(guest: Guest, machine: Machine, reconnect: Reconnect) -> None:
    """Catches a restore that changes nothing, and one that loses what was there before."""
    snapshots = who_can(machine, Snapshots)
    linux.sh(guest, "echo kept >/root/lab-before && rm -f /root/lab-after")
    with _snapshot(guest, snapshots) as name:
        assert name in snapshots.snapshots(), f"{name} was taken and is not listed: {list(snapshots.snapshots())}"
        linux.sh(guest, "echo changed >/root/lab-before && echo new >/root/lab-after && sync")
        snapshots.restore(name)
        reconnect(BACK_WITHIN_S)
        linux.set_clock(guest)
        before = guest.check("cat", "/root/lab-before")
        after = guest.run("test", "-e", "/root/lab-after").status
    assert before == "kept", f"a file of before the snapshot says {before!r} after the restore"
    assert after != 0, "a file that was made after the snapshot is still there after the restore"
    guest.check("rm", "/root/lab-before")


@check("lifecycle.snapshot", needs=(Capability.SNAPSHOTS,), cold=True, timeout_s=300)
def test_deleted_snapshot_leaves_the_machine_as_it_is(guest: Guest, machine: Machine) -> None:
    """Catches a deletion that takes newer data with it, and snapshots that stay listed."""
    snapshots = who_can(machine, Snapshots)
    before = set(snapshots.snapshots())
    with _snapshot(guest, snapshots):
        linux.sh(guest, "echo newer >/root/lab-newer && sync")
    assert set(snapshots.snapshots()) == before, f"left behind: {set(snapshots.snapshots()) - before}"
    text = linux.sh(guest, "echo 3 >/proc/sys/vm/drop_caches; cat /root/lab-newer; rm /root/lab-newer")
    assert text == "newer", f"what was written after the snapshot reads {text!r} after its deletion"


@check("lifecycle.snapshot", needs=(Capability.SNAPSHOTS,), cold=True, timeout_s=400, defect=True)
def test_restore_goes_on_where_the_snapshot_was(guest: Guest, machine: Machine, reconnect: Reconnect) -> None:
    """Catches a restore that does nothing, boots instead of going on, loses memory, or leaves processes dead."""
    snapshots = who_can(machine, Snapshots)
    if not snapshots.snapshots_hold_memory():
        unsupported("snapshots of this hypervisor hold the disk and not the memory")
    seen = witness.place(guest)
    saved = seen.count()
    with _snapshot(guest, snapshots) as name:
        seen.wait_until_it_counts(beyond=saved + 5)
        guest.check("touch", f"{seen.folder}/after")
        snapshots.restore(name)
        reconnect(BACK_WITHIN_S)
        linux.set_clock(guest)
        after = guest.run("test", "-e", f"{seen.folder}/after").status
    assert after != 0, "what was put into memory after the snapshot is still there after the restore"
    seen.assert_survived(at_least=saved)
    seen.leave()
