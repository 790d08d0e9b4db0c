"""time.clocksource: a good clock source is in use, and time does not run backwards."""

from __future__ import annotations

import itertools

from lab.suite import Guest, Hypervisor, Machine, check, linux, not_applicable

FOLDER = "/sys/devices/system/clocksource/clocksource0"
# What the kernel falls back to when it found no clock: the tick (kernel/time/jiffies.c).
NO_CLOCKS = ("jiffies", "refined-jiffies")
# What the hypervisor brings itself; the kernel may prefer the processor's own counter where that is good enough.
PARAVIRTUAL = {"xenpv": "xen", "xenpvh": "xen", "xenhvm": "xen"}
READINGS = 400


@check("time.clocksource", level="smoke", defect=True)
def test_a_real_clock_is_in_use(guest: Guest, hypervisor: Hypervisor) -> None:
    """Catches a guest that counts ticks because every clock was missing or found unstable."""
    current, offered = guest.check(
        "cat", f"{FOLDER}/current_clocksource", f"{FOLDER}/available_clocksource"
    ).splitlines()
    assert current in offered.split(), f"uses {current!r}, offered are {offered!r}"
    assert current not in NO_CLOCKS, f"the guest has no clock but the tick ({current}); offered are {offered!r}"
    if hypervisor.facts().accelerator == "tcg":
        return  # emulated processors wait for a place on the host's, which the kernel's watchdog takes for a bad clock
    unstable = [line.text for line in linux.kernel_log(guest) if "as unstable because" in line.text]
    assert not unstable, f"the kernel gave a clock up: {unstable[0]}"


@check("time.clocksource", level="smoke")
def test_the_hypervisors_clock_is_offered(guest: Guest, machine: Machine) -> None:
    """Catches a guest that does not see the clock that its hypervisor keeps for it."""
    wanted = PARAVIRTUAL.get(machine.spec.profile.chipset)
    if wanted is None:
        not_applicable("this hardware has no clock of its hypervisor's that the lab knows")
    offered = guest.check("cat", f"{FOLDER}/available_clocksource").split()
    assert wanted in offered, f"the clock {wanted} is not offered, only {', '.join(offered)}"


@check("time.clocksource")
def test_time_never_goes_back(guest: Guest) -> None:
    """Catches processors whose clocks disagree and clocks that jump: the uptime is read again and again."""
    script = f"i=0; while [ $i -lt {READINGS} ]; do read up rest </proc/uptime; echo $up; i=$((i + 1)); done"
    readings = [float(line) for line in linux.sh(guest, script).splitlines()]
    assert len(readings) == READINGS, f"{len(readings)} readings instead of {READINGS}"
    back = [(one, two) for one, two in itertools.pairwise(readings) if two < one]
    assert not back, f"time went back {len(back)} times, first from {back[0][0]} to {back[0][1]} s"
