"""channel.nmi: the host can interrupt a guest that does not listen any more."""

from __future__ import annotations

from lab.suite import Capability, Guest, InjectsNmi, Machine, check, waiting, who_can


@check("channel.nmi", needs=(Capability.NMI,), cold=True, defect=True)
def test_interrupt_arrives(guest: Guest, machine: Machine) -> None:
    """Catches an injection that is accepted and never delivered: a hung guest could not be made to dump."""
    before = _interrupts(guest)
    who_can(machine, InjectsNmi).inject_nmi()
    waiting.until(lambda: _interrupts(guest) > before, what="the guest's count of NMIs to rise", timeout_s=20)


def _interrupts(guest: Guest) -> int:
    for line in guest.check("cat", "/proc/interrupts").splitlines():
        name, _, rest = line.strip().partition(":")
        if name == "NMI":
            return sum(int(word) for word in rest.split() if word.isdigit())
    raise AssertionError("/proc/interrupts does not count NMIs")
