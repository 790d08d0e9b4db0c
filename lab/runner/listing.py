"""Listing: every machine of the lab on the hosts of some inventories, whose it is, and how to reach it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lab.contracts import Endpoint, Machine, MachineState, Owner
from lab.errors import LabError
from lab.inventory.models import Host, Inventory
from lab.provisioning import hosts
from lab.runner import kept, reap

SCHEMA = 1


@dataclass(frozen=True)
class Listed:
    """One machine."""

    cell: str
    host: str
    machine: str
    whose: str  # "by hand", "run RUN", or "left over" for what `lab reap` destroys
    state: MachineState
    since: datetime | None  # it is up by hand, or its run began
    memory_mib: int
    endpoint: Endpoint | None  # of its SSH server; None when it is not running
    command: str  # that gets in; "" where the lab keeps no key for it

    def as_json(self) -> dict[str, object]:
        """The machine as `lab ls --json` shows it."""
        endpoint = self.endpoint
        return {
            "cell": self.cell,
            "host": self.host,
            "machine": self.machine,
            "whose": self.whose,
            "state": self.state.value,
            "since": None if self.since is None else self.since.isoformat(),
            "memory_mib": self.memory_mib,
            "endpoint": None if endpoint is None else {"host": endpoint.host, "port": endpoint.port},
            "command": self.command,
        }


@dataclass(frozen=True)
class Listing:
    """What was found, and why a host could not be looked at."""

    machines: tuple[Listed, ...]
    problems: tuple[str, ...]

    def as_json(self) -> dict[str, object]:
        """The whole document of `lab ls --json`."""
        return {
            "schema": SCHEMA,
            "machines": [machine.as_json() for machine in self.machines],
            "problems": list(self.problems),
        }


def every(inventories: Mapping[Path, Inventory]) -> Listing:
    """The machines on all hosts of these inventories, keyed by how each is written; one bad host hides no other."""
    machines: dict[tuple[str, str], Listed] = {}
    problems: list[str] = []
    for written, inventory in inventories.items():
        for host in inventory.hosts.values():
            try:
                found = list(_on_host(written, inventory, host))
            except LabError as reason:
                problems.append(f"{host.name}: {reason}")
                continue
            for listed in found:
                # Inventories that name the same host see the same machines; who can get in shows it.
                key = (listed.host, listed.machine)
                if key not in machines or listed.command:
                    machines[key] = listed
    return Listing(tuple(sorted(machines.values(), key=lambda it: (it.cell, it.machine))), tuple(problems))


def _on_host(written: Path, inventory: Inventory, host: Host) -> Iterable[Listed]:
    with hosts.connect_existing(host) as hypervisor:
        for owner, machine in hypervisor.machines() if hypervisor is not None else ():
            yield _listed(written, inventory, owner, machine)


def _listed(written: Path, inventory: Inventory, owner: Owner, machine: Machine) -> Listed:
    place = kept.place_of_owner(owner)
    document = place.read() if place is not None else None
    is_here = document is not None and document.inventory == inventory.path.resolve()
    whose = "by hand" if document is not None else f"run {owner.run}" if place is None else "by hand, coming up"
    entry = inventory.guests.get(owner.cell.split("/")[1]) if owner.cell.count("/") == 2 else None
    port = document.port if document is not None else entry.channel.port if entry is not None else 22
    return Listed(
        cell=owner.cell,
        host=owner.cell.split("/")[0],
        machine=machine.name,
        whose="left over" if reap.is_orphan(owner) else whose,
        state=machine.state(),
        since=_begun(owner.run) if document is None else document.since,
        memory_mib=machine.spec.profile.memory_mib,
        endpoint=_endpoint(machine, port),
        command=f"lab ssh {written} {owner.cell}" if is_here else "",
    )


def _endpoint(machine: Machine, port: int) -> Endpoint | None:
    try:
        return machine.endpoint(port) if machine.state() is MachineState.RUNNING else None
    except LabError:
        return None  # it ended since it was asked, or nothing in it can answer


def _begun(run: str) -> datetime | None:
    """When a run began, told by its id."""
    try:
        return datetime.strptime(run.rpartition("-")[0], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None
