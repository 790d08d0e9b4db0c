"""memory.balloon: the host takes memory from the running guest and gives it back."""

from __future__ import annotations

from lab.suite import Balloons, Capability, Guest, Machine, Measurements, check, linux, waiting, who_can

TAKEN_SHARE = 0.25
TOLERANCE = 0.05  # of the target, as Hyper-V's dynamic memory is judged by (field rule: target within 5 %)
WITHIN_S = 60.0


@check("memory.balloon", needs=(Capability.BALLOON,), timeout_s=240, defect=True)
def test_memory_goes_and_comes_back(guest: Guest, machine: Machine, measured: Measurements) -> None:
    """Catches a balloon without driver, one that only the host believes in, and memory that does not come back."""
    linux.settle(guest)
    balloon = who_can(machine, Balloons)
    asked = machine.spec.profile.memory_mib
    target = round(asked * (1 - TAKEN_SHARE))
    total = _total_mib(guest)
    try:
        balloon.set_balloon(target)
        waiting.until(
            lambda: abs(balloon.balloon_mib() - target) <= asked * TOLERANCE,
            what=f"the hypervisor to see the guest at {target} MiB",
            timeout_s=WITHIN_S,
        )
        taken = total - _total_mib(guest)
        measured.add("taken", taken, "MiB")
        wanted = asked - target
        assert taken >= wanted - asked * TOLERANCE, f"the host took {wanted} MiB, the guest lost {taken:.0f}"
    finally:
        balloon.set_balloon(asked)
    back = total - asked * TOLERANCE
    waiting.until(lambda: _total_mib(guest) >= back, what=f"the guest to have {back:.0f} MiB again", timeout_s=WITHIN_S)


def _total_mib(guest: Guest) -> float:
    first = guest.check("grep", "^MemTotal:", "/proc/meminfo")
    return int(first.split()[1]) / 1024
