"""Why a guest fell silent: what its hypervisor and its console prove about a lost connection."""

from __future__ import annotations

from collections.abc import Sequence

from lab.contracts import Machine, MachineState
from lab.errors import GuestPanicked, GuestUnreachable, LabError, MachineVanished, NotSupported

_KERNEL_STARTS = b"Linux version "


def explained(error: BaseException, machines: Sequence[Machine]) -> BaseException:
    """The reason behind a lost connection where hypervisor or console of a machine tell it; else the error as it is.

    Whatever else a check fails with, when its machine has ended unasked that is the reason.
    """
    if isinstance(error, NotSupported | MachineVanished) or not isinstance(error, LabError | AssertionError):
        return error
    if not isinstance(error, GuestUnreachable):
        gone = next((machine for machine in machines if _is_gone(machine)), None)
        return error if gone is None else _vanished(gone, f", and the check failed with: {error}")
    reasons = (_explained(error, machine) for machine in machines)
    return next((reason for reason in reasons if reason is not error), error)


def _explained(error: GuestUnreachable, machine: Machine) -> LabError:
    from lab.guests import claims, triage

    try:
        state = machine.state()
        log = machine.console()
    except LabError:
        # The hypervisor does not answer either; the lost connection is what is known.
        return error
    last_boot = log[max(log.rfind(_KERNEL_STARTS), 0) :]
    found = triage.triage(last_boot)
    if state is MachineState.CRASHED:
        told = found.cause or triage.last_line(log)
        return GuestPanicked(f"the kernel of {machine.name} panicked, {claims.HYPERVISOR}: {told}")
    if state is MachineState.GONE:
        return _vanished(machine, f"; the last line of its console: {triage.last_line(log)!r}")
    if found.failure_class == claims.PANIC:
        # Any program of the guest can write such lines, and then lose its connection for another reason.
        return GuestUnreachable(f"{error.what}; a {found.cause}, {claims.CONSOLE_ONLY}")
    return error


def _is_gone(machine: Machine) -> bool:
    try:
        return machine.state() is MachineState.GONE
    except LabError:
        return False  # the hypervisor does not answer; the check's own error is what is known


def _vanished(machine: Machine, more: str) -> MachineVanished:
    return MachineVanished(f"{machine.name} ended by itself while a check ran{more}")
