"""Loads an inventory: reads all of its files, and either everything is right or every problem is told at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TypeVar

from lab import hypervisors
from lab.inventory.guests import demand_image, read_guests
from lab.inventory.host_files import HostFiles, read_host_files
from lab.inventory.hosts import Drivers, make_hosts
from lab.inventory.matrix import Known, read_matrix
from lab.inventory.models import Host, Inventory, Matrix
from lab.inventory.problems import Problems, did_you_mean
from lab.inventory.profiles import read_profiles
from lab.inventory.resolve import GROUP, Resolved, ask_ansible

T = TypeVar("T")

Resolver = Callable[[Path, Problems], Resolved | None]
"""Gives the hosts of an inventory's folder, or `None` and a problem."""


@dataclass(frozen=True)
class Sources:
    """What an inventory is read with; the defaults are the real ones."""

    resolver: Resolver = ask_ansible
    drivers: Drivers = hypervisors
    today: Callable[[], date] = date.today


def load(path: Path, *, sources: Sources | None = None) -> Inventory:
    """The inventory in a folder. Raises `InventoryProblems` with all of its problems."""
    sources = sources or Sources()
    problems = Problems()
    if not path.is_dir():
        _complain_of_path(path, problems)
        problems.raise_if_any()
    # Guests and profiles are shared by the inventories beside each other.
    guests = read_guests((path / "guests", path.parent / "guests"), problems)
    shared, own = path.parent / "profiles.yaml", path / "profiles.yaml"
    profiles = read_profiles(own if own.exists() else shared, problems)
    hosts = _hosts(path, sources, problems)
    matrix = read_matrix(path / "matrix.yaml", Known(hosts, guests, profiles), sources.today(), problems)
    if matrix is not None:
        for name in _guests_in_use(matrix[0]):
            if name in guests:
                demand_image(guests[name], problems)
    problems.raise_if_any()
    if matrix is None or hosts is None or profiles is None:
        raise AssertionError("what could not be read has told no problem")
    return Inventory(
        path=path,
        hosts=_whole(hosts),
        guests={name: guest.entry for name, guest in guests.items() if guest.entry is not None},
        profiles=_whole(profiles),
        matrix=matrix[0],
        suites=matrix[1],
    )


def _complain_of_path(path: Path, problems: Problems) -> None:
    if path.exists():
        problems.add(path, 0, "", f"an inventory is a folder; give {path.parent} instead")
        return
    beside = [entry.name for entry in path.parent.iterdir() if entry.is_dir()] if path.parent.is_dir() else []
    problems.add(path, 0, "", f"no such folder{did_you_mean(path.name, beside)}")


def _hosts(path: Path, sources: Sources, problems: Problems) -> Mapping[str, Host | None] | None:
    """The hosts, or `None` when it could not be found out which there are."""
    before = len(problems)
    files: HostFiles = read_host_files(path, problems)
    if len(problems) > before:
        return None  # Ansible would stumble over the same, and say it less well
    resolved = sources.resolver(path, problems)
    if resolved is None:
        return None
    if not resolved:
        where = files.files[0] if len(files.files) == 1 else path
        problems.add(where, 0, GROUP, "the group has no hosts; the lab uses the hosts of this group")
        return None
    return make_hosts(resolved, files, sources.drivers, problems)


def _guests_in_use(matrix: Matrix) -> list[str]:
    included = [parts[1] for parts in (item.cell.split("/") for item in matrix.include) if len(parts) == 3]
    return list(dict.fromkeys((*matrix.guests, *included)))


def _whole(found: Mapping[str, T | None]) -> dict[str, T]:
    return {name: value for name, value in found.items() if value is not None}
