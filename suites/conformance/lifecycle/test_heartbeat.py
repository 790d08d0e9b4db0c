"""lifecycle.heartbeat: the host sees whether the guest lives."""

from __future__ import annotations

import secrets
import time

from lab.suite import Capability, Guest, Machine, MachineState, Pauses, check, linux, waiting, who_can

PAUSED_S = 4.0
TICK_S = 0.2
SLACK_S = 1.5  # a read of the counter takes up to half a second in an emulated guest, and there are two


@check("lifecycle.heartbeat", needs=(Capability.PAUSES,))
def test_paused_guest_stands_still_and_goes_on(guest: Guest, machine: Machine) -> None:
    """Catches a pause that only the hypervisor believes in, a wrong state, and a guest that dies of it."""
    pauses = who_can(machine, Pauses)
    file = f"/tmp/lab-ticks-{secrets.token_hex(4)}"
    count = f"i=0; while [ $i -lt 900 ] && [ -e {file} ]; do i=$((i + 1)); echo $i >{file}; sleep {TICK_S}; done"
    linux.sh(guest, f"echo 0 >{file}; setsid sh -c '{count}' </dev/null >/dev/null 2>&1 &")
    try:
        waiting.until(lambda: _ticks(guest, file) > 1, what="the guest to count", timeout_s=20)
        before, start = _ticks(guest, file), time.monotonic()
        pauses.pause()
        try:
            assert machine.state() is MachineState.PAUSED, f"paused, and the hypervisor says {machine.state()}"
            waiting.pause(PAUSED_S)
        finally:
            pauses.resume()
            linux.set_clock(guest)  # it stood still as well
        assert machine.state() is MachineState.RUNNING, f"resumed, and the hypervisor says {machine.state()}"
        counted, ran = _ticks(guest, file) - before, time.monotonic() - start - PAUSED_S
        most = (ran + SLACK_S) / TICK_S
        assert counted <= most, (
            f"the guest counted {counted} times {TICK_S} s around a pause; at most {most:.0f} had time"
        )
        again = _ticks(guest, file)
        waiting.until(lambda: _ticks(guest, file) > again, what="the guest to go on counting", timeout_s=20)
    finally:
        guest.run("rm", "-f", file)


def _ticks(guest: Guest, file: str) -> int:
    # The counter rewrites its file; a read in between finds it empty.
    text = guest.check("cat", file)
    return int(text) if text else 0
