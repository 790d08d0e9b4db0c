"""Claims: a panic that a console tells of is believed as far as hypervisor and network bear it out.

Whatever a program of the guest writes to /dev/console looks like the kernel's own lines, time stamps included. What it
cannot forge: the hypervisor's event (pvpanic; the abort of User-Mode Linux), and the greeting of an SSH server, which
a kernel that has panicked does not send, although it may still answer pings and accept connections.
"""

from __future__ import annotations

from dataclasses import replace

from lab.errors import Blame
from lab.guests.triage import CONSOLE_ONLY, Triage
from lab.ssh._dial import Answer

__all__ = ["CONSOLE_ONLY", "HYPERVISOR", "PANIC", "QUIET_S", "SILENCE", "is_certain", "weighed"]

PANIC = "kernel-panic"
HYPERVISOR = "seen by the hypervisor"
SILENCE = "claimed by console only, and user space answers no more"

QUIET_S = 20.0
"""How long a console must be silent after a panic that only it tells of: a guest that lives says more, or greets."""


def is_certain(found: Triage, *, crashed: bool, silent_s: float, answer: Answer) -> bool:
    """Whether a guest that is not up yet has panicked, so that waiting longer is of no use."""
    if crashed:
        return True
    return found.failure_class == PANIC and silent_s > QUIET_S and answer is not Answer.BANNER


def weighed(found: Triage, *, crashed: bool, answer: Answer) -> Triage:
    """What a console told, beside what hypervisor (`crashed`) and network (`answer`) prove."""
    if found.failure_class != PANIC:
        return found
    if crashed:
        return replace(found, proof=HYPERVISOR)
    if answer is not Answer.BANNER:
        return replace(found, proof=SILENCE)
    cause = f"the console claims a {found.cause}, and the guest's SSH server greets, which no kernel does after a panic"
    if found.booted:
        return replace(found, failure_class="none", blame=Blame.NOBODY, cause="", proof="")
    return replace(found, failure_class="unknown", blame=Blame.PRODUCT, cause=cause, proof=CONSOLE_ONLY)
