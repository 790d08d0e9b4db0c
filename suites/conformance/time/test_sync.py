"""time.sync: the guest's clock is right, and goes at the right speed."""

from __future__ import annotations

import re
import time

from lab.suite import Guest, Hypervisor, Measurements, blocked, check, linux, not_applicable, waiting

# LISAv2 accepts 5 s between guest and host (Testscripts/Windows/TIME-*.ps1). The hardware clock that a guest sets
# itself by at boot counts whole seconds, so less than 1 s cannot be asked for.
OFFSET_S = 5.0
# What NTP can correct: adjtimex(2) takes a frequency of at most 500 ppm (MAXFREQ).
DRIFT_PPM = 500.0
DRIFT_OVER_S = 6.0
TRIES = 7
# kernel/sched/clock.c, __set_sched_clock_stable: what the clock said, its offset, and what the processor had counted.
_MARKED_STABLE = re.compile(r"sched_clock: Marking stable \((-?\d+), (-?\d+)\)->\((-?\d+), -?\d+\)")


class _Reading:
    """The guest's clock against the controller's; the truth is within `offset` +- `error` (seconds)."""

    def __init__(self, before: float, guest: float, after: float) -> None:
        self.at = (before + after) / 2
        self.offset = guest - self.at
        self.error = (after - before) / 2


def _best(guest: Guest, clock: list[str]) -> _Reading:
    """The reading with the shortest round trip of some."""
    readings = []
    for _ in range(TRIES):
        before = time.time()
        answer = guest.check(*clock)
        after = time.time()
        readings.append(_Reading(before, _seconds(answer), after))
    return min(readings, key=lambda reading: reading.error)


def _clock(guest: Guest) -> list[str]:
    """A command that prints the guest's time in fine steps: busybox's date has no fractions, its adjtimex has."""
    for clock in (["date", "+%s.%N"], ["adjtimex"]):
        if _seconds(guest.run(*clock).out) % 1:
            return clock
    return ["date", "+%s"]


def _seconds(text: str) -> float:
    if "tv_sec" in text:
        words = text.replace(":", " ").split()
        return float(words[words.index("time.tv_sec") + 1]) + float(words[words.index("time.tv_usec") + 1]) / 1e6
    whole, _, fraction = text.strip().partition(".")
    return float(f"{whole}.{fraction}") if fraction.isdigit() else float(whole or "0")


def _lost_at_boot_s(guest: Guest) -> float:
    """How far its clock fell behind its processor's while it booted, as its kernel noted; 0 when it did not.

    Until its clocksource takes over, a kernel counts ticks, and those that it is not run for are lost.
    """
    found = _MARKED_STABLE.search(guest.run("dmesg").out)
    if found is None:
        return 0.0
    clock, offset, counted = (int(number) / 1e9 for number in found.groups())
    return counted - clock - offset


@check("time.sync", level="smoke", defect=True)
def test_clock_is_right(guest: Guest, hypervisor: Hypervisor, measured: Measurements) -> None:
    """Catches a guest that lives in another time: a wrong hardware clock, or one still standing at a saved moment."""
    reading = _best(guest, _clock(guest))
    measured.add("offset", reading.offset, "s", better="none")
    measured.add("offset_error", reading.error, "s", better="lower")
    off = abs(reading.offset) - reading.error
    if off > OFFSET_S and hypervisor.facts().realness == "emulated":
        lost = _lost_at_boot_s(guest)
        if lost > 0 and abs(reading.offset + lost) - reading.error <= OFFSET_S:
            blocked(
                f"the emulated host did not run the guest for {lost:.1f} s while its kernel counted ticks at boot, and "
                f"its clock is {reading.offset:+.1f} s off by that"
            )
    assert off <= OFFSET_S, (
        f"the guest's clock is {reading.offset:+.3f} s off (+- {reading.error:.3f}); allowed {OFFSET_S:g}"
    )


@check("time.sync", defect=True)
def test_clock_goes_at_the_right_speed(guest: Guest, measured: Measurements) -> None:
    """Catches clocks that drift more than time synchronisation could ever correct."""
    clock = _clock(guest)
    first = _best(guest, clock)
    waiting.pause(DRIFT_OVER_S)
    second = _best(guest, clock)
    span = second.at - first.at
    drift = (second.offset - first.offset) / span * 1e6
    error = (second.error + first.error) / span * 1e6
    if clock == ["date", "+%s"]:
        error += 1e6 / span  # whole seconds at both ends
    measured.add("drift", drift, "ppm", better="none")
    measured.add("drift_error", error, "ppm", better="lower")
    assert abs(drift) - error <= DRIFT_PPM, f"the clock drifts {drift:+.0f} ppm (+- {error:.0f}); allowed {DRIFT_PPM:g}"


@check("time.sync", cold=True, defect=True)
def test_hardware_clock_is_right(guest: Guest, measured: Measurements) -> None:
    """Catches a hardware clock in local time or at a wrong date: every boot would begin there."""
    linux.settle(guest)
    rtc = guest.run("cat", "/sys/class/rtc/rtc0/since_epoch")
    if rtc.status != 0:
        not_applicable("this machine has no hardware clock")
    offset = float(rtc.out) - time.time()
    measured.add("hardware_clock_offset", offset, "s", better="none")
    assert abs(offset) <= OFFSET_S, f"the hardware clock is {offset:+.1f} s off; allowed {OFFSET_S:g}"
