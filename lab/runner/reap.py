"""Reap: destroy what dead runs left on the hosts of an inventory, told by the owner mark and nothing else.

A machine that somebody brought up by hand outlives its command on purpose; it is left over once it is old.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from lab import log, process
from lab.contracts import Owner
from lab.errors import LabError
from lab.inventory.models import Host, Inventory
from lab.provisioning import hosts
from lab.runner import kept

_log = log.get(__name__)


@dataclass(frozen=True)
class Reaped:
    """What became of the leftovers of one host."""

    host: str
    destroyed: tuple[str, ...] = ()
    problem: str = ""  # why this host could not be looked at, or a machine not be destroyed


def is_orphan(owner: Owner, *, by_hand_for: timedelta = kept.FOR) -> bool:
    """Whether nobody answers for a machine: its run's controller is dead, or it was kept up by hand for too long."""
    if kept.place_of_owner(owner) is not None:
        return kept.is_left(owner, older_than=by_hand_for)
    return not process.is_alive(owner.pid, owner.pid_started)


def of_run(run: str) -> Callable[[Owner], bool]:
    """Picks the machines of one run, for that run's own controller."""
    return lambda owner: owner.run == run


def of_cell(run: str, cell: str) -> Callable[[Owner], bool]:
    """Picks the machines of one cell of one run."""
    return lambda owner: owner.run == run and owner.cell == cell


def reap(inventory: Inventory, *, picks: Callable[[Owner], bool] = is_orphan) -> list[Reaped]:
    """Destroy the machines that `picks` names on every host; one bad host does not save the others' leftovers."""
    return [reap_host(host, picks=picks) for host in inventory.hosts.values()]


def reap_host(host: Host, *, picks: Callable[[Owner], bool]) -> Reaped:
    """Destroy the machines that `picks` names on one host."""
    destroyed: list[str] = []
    problems: list[str] = []
    try:
        with hosts.connect_existing(host) as hypervisor:
            for owner, machine in hypervisor.machines() if hypervisor is not None else ():
                if not picks(owner):
                    continue
                try:
                    machine.destroy()
                except LabError as reason:
                    problems.append(f"{machine.name}: {reason}")
                    continue
                _log.info("reaped", host=host.name, machine=machine.name, run=owner.run, cell=owner.cell)
                destroyed.append(machine.name)
                if (place := kept.place_of_owner(owner)) is not None:
                    place.clear()
    except LabError as reason:
        problems.append(str(reason))
    return Reaped(host.name, tuple(destroyed), "; ".join(problems))
