"""lifecycle.snapshot_quiesced: a copy that is taken while the guest writes is consistent."""

from __future__ import annotations

import secrets

from lab.suite import (
    Capability,
    FreezesFilesystems,
    Guest,
    Machine,
    Reconnect,
    RunsInGuest,
    Snapshots,
    check,
    linux,
    waiting,
    who_can,
)

ANSWERS_WITHIN_S = 60.0
BACK_WITHIN_S = 300.0
STILL_S = 3.0
FILE = "/root/lab-quiesced"
MEMORY = "/dev/shm"  # not frozen: it has no disk

_WRITER = f"""
i=0
while [ -e {MEMORY}/lab-writer ]; do
  i=$((i + 1))
  echo $i >{FILE}.new && mv {FILE}.new {FILE}
  echo $i >{MEMORY}/lab-written
  sleep 0.05
done
"""


@check(
    "lifecycle.snapshot_quiesced",
    needs=(Capability.FILESYSTEM_FREEZE, Capability.SNAPSHOTS, Capability.GUEST_COMMANDS),
    cold=True,
    spoils=True,
    timeout_s=600,
    defect=True,
)
def test_snapshot_of_frozen_file_systems_is_clean(guest: Guest, machine: Machine, reconnect: Reconnect) -> None:
    """Catches a freeze that holds nothing still, a thaw that leaves writers hanging, and a copy that needs repair."""
    freezes, snapshots = who_can(machine, FreezesFilesystems), who_can(machine, Snapshots)
    linux.settle(guest)
    agent = who_can(machine, RunsInGuest)
    waiting.until(agent.agent_answers, what="the guest's agent to answer", timeout_s=ANSWERS_WITHIN_S)
    linux.sh(guest, f"touch {MEMORY}/lab-writer; echo 0 >{MEMORY}/lab-written")
    linux.sh(guest, f"setsid sh -c '{_WRITER}' </dev/null >/dev/null 2>&1 &")
    waiting.until(lambda: _written(guest) > 2, what="the guest to write", timeout_s=30)
    name = f"lab-{secrets.token_hex(4)}"
    frozen = freezes.freeze()
    try:
        assert frozen >= 1, f"the host froze {frozen} file systems"
        held = _written(guest)
        waiting.pause(STILL_S)
        # One write may have been past the door when it was closed.
        wrote = _written(guest) - held
        assert wrote <= 1, f"the file systems are frozen, and the guest wrote {wrote} times"
        snapshots.snapshot(name)
    finally:
        thawed = freezes.thaw()
    try:
        assert thawed == frozen, f"froze {frozen} file systems and thawed {thawed}"
        waiting.until(lambda: _written(guest) > held + 2, what="the guest to write again", timeout_s=30)
        snapshots.restore(name)
        # What was in memory is given up: the copy must stand on its disk alone.
        machine.stop(force=True)
        machine.start()
        reconnect(BACK_WITHIN_S)
    finally:
        snapshots.delete_snapshot(name)
    text = guest.check("cat", FILE)
    assert text.isdigit(), f"the file that was rewritten all the time reads {text!r}"
    assert held - 1 <= int(text) <= held + 1, f"the guest had written {held} when it was frozen; the copy holds {text}"
    lines = [line.text for line in linux.kernel_log(guest) if "EXT4-fs" in line.text or "XFS" in line.text]
    assert lines, "the kernel says nothing of its root file system, so nobody knows whether it was clean"
    torn = [text for text in lines if "recover" in text or "orphan" in text or "error" in text.lower()]
    assert not torn, f"the frozen copy had to be repaired: {'; '.join(torn)}"


def _written(guest: Guest) -> int:
    # The writer rewrites its file; a read in between finds it empty.
    read = "cat", f"{MEMORY}/lab-written"
    return int(waiting.until(lambda: guest.check(*read), what="the writer's count", timeout_s=30))
