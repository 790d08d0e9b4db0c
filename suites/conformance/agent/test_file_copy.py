"""agent.file_copy: files go in and out through the agent."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import PurePosixPath

from lab.suite import Capability, CopiesFiles, Guest, Machine, RunsInGuest, check, linux, waiting, who_can

SIZE = (1 << 20) + 13  # larger than any message, and no round number
ANSWERS_WITHIN_S = 60.0
PATH = PurePosixPath("/tmp/lab copied 'file'")


@check("agent.file_copy", needs=(Capability.GUEST_FILES,), timeout_s=240, defect=True)
def test_files_arrive_as_they_were(guest: Guest, machine: Machine) -> None:
    """Catches files that are cut, changed or put elsewhere, both ways; what arrived is read by another way in."""
    copies = who_can(machine, CopiesFiles)
    linux.settle(guest)
    if isinstance(machine, RunsInGuest):
        # A dead agent is found here; a file waits longer for one than this check may take.
        waiting.until(machine.agent_answers, what="the guest's agent to answer", timeout_s=ANSWERS_WITHIN_S)
    content = secrets.token_bytes(SIZE)
    copies.agent_write(PATH, content)
    there = guest.check("sha256sum", str(PATH)).split()[0].lstrip("\\")
    assert there == hashlib.sha256(content).hexdigest(), f"the file of {SIZE} bytes arrived with the sum {there}"
    other = secrets.token_bytes(SIZE)
    guest.write(PATH, other)
    back = copies.agent_read(PATH)
    assert back == other, f"read {len(back)} bytes that are not the {SIZE} of the file"
    copies.agent_write(PATH, b"")
    assert guest.check("wc", "-c", str(PATH)).split()[0] == "0", "an empty file replaced a full one and is not empty"
    guest.check("rm", str(PATH))
