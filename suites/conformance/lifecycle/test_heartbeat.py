"""lifecycle.heartbeat: the host sees whether the guest lives."""

from __future__ import annotations

import time

from lab.suite import (
    Capability,
    Guest,
    Machine,
    MachineState,
    Pauses,
    RunsInGuest,
    Watches,
    check,
    linux,
    unsupported,
    waiting,
    who_can,
    witness,
)

PAUSED_S = 4.0
SLACK_S = 1.5  # a read of the counter takes up to half a second in an emulated guest, and there are two

FED_S = 6.0
WATCHDOG_S = 4  # the guest's own limit, shorter than the time in which nothing may happen
FIRES_WITHIN_S = 60.0


@check("lifecycle.heartbeat", needs=(Capability.PAUSES,), defect=True)
def test_paused_guest_stands_still_and_goes_on(guest: Guest, machine: Machine) -> None:
    """Catches a pause that only the hypervisor believes in, a wrong state, and a guest that dies of it."""
    pauses = who_can(machine, Pauses)
    seen = witness.place(guest)
    before, start = seen.count(), time.monotonic()
    pauses.pause()
    try:
        assert machine.state() is MachineState.PAUSED, f"paused, and the hypervisor says {machine.state()}"
        waiting.pause(PAUSED_S)
    finally:
        pauses.resume()
        linux.set_clock(guest)  # it stood still as well
    assert machine.state() is MachineState.RUNNING, f"resumed, and the hypervisor says {machine.state()}"
    counted, ran = seen.count() - before, time.monotonic() - start - PAUSED_S
    most = (ran + SLACK_S) / witness.TICK_S
    assert counted <= most, (
        f"the guest counted {counted} times {witness.TICK_S} s around a pause; at most {most:.0f} had time"
    )
    seen.assert_survived(at_least=before)
    seen.leave()


@check("lifecycle.heartbeat", needs=(Capability.GUEST_COMMANDS, Capability.PAUSES), timeout_s=240)
def test_agent_falls_silent_with_the_guest(guest: Guest, machine: Machine) -> None:
    """Catches a sign of life that goes on without the guest, and one that does not come back with it."""
    agent, pauses = who_can(machine, RunsInGuest), who_can(machine, Pauses)
    linux.settle(guest)
    waiting.until(agent.agent_answers, what="the guest's agent to answer", timeout_s=60)
    pauses.pause()
    try:
        assert not agent.agent_answers(), "the guest's processors stand still, and its agent answers"
    finally:
        pauses.resume()
        linux.set_clock(guest)
    waiting.until(agent.agent_answers, what="the agent to answer again after the pause", timeout_s=60)


@check("lifecycle.heartbeat", needs=(Capability.WATCHDOG,), cold=True, timeout_s=300)
def test_watchdog_fires_when_nobody_feeds_it(guest: Guest, machine: Machine) -> None:
    """Catches a watchdog that never fires, fires although it is fed, or belongs to the guest alone."""
    watches = who_can(machine, Watches)
    linux.settle(guest)
    linux.sh(guest, "modprobe i6300esb 2>/dev/null || modprobe iTCO_wdt 2>/dev/null || true")
    if guest.run("test", "-c", "/dev/watchdog").status != 0:
        unsupported("the guest's kernel has no driver for the machine's watchdog")
    linux.require_tools(guest, "busybox")
    before = watches.watchdog_fired()
    feeder = f"busybox watchdog -F -T {WATCHDOG_S} -t 1 /dev/watchdog"
    pid = linux.sh(guest, f"setsid {feeder} </dev/null >/dev/null 2>&1 & echo $!")
    try:
        waiting.pause(FED_S)
        assert guest.run("kill", "-0", pid).status == 0, f"{feeder!r} ended by itself"
        fired = watches.watchdog_fired() - before
        assert fired == 0, f"the watchdog fired {fired} times although it was fed each second"
        guest.check("kill", "-STOP", pid)
        waiting.until(
            lambda: watches.watchdog_fired() > before,
            what=f"the watchdog to fire, which was told to after {WATCHDOG_S} s",
            timeout_s=FIRES_WITHIN_S,
        )
    finally:
        # Told to end, it switches the watchdog off.
        guest.run("sh", "-c", f"kill -CONT {pid}; kill -TERM {pid}")
