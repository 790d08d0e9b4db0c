"""The plan of a qualification: one cell of a host, with the tests of the contract for drivers as its checks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from lab import hypervisors
from lab.catalogue import Catalogue
from lab.contracts import Cell
from lab.errors import ConfigurationError, NothingToRun
from lab.inventory.models import Inventory
from lab.runner.plan import BOOT_S, CHECK_S, Plan, PlannedCell

FAMILY = "linux"
"""Of the guest: the tests of the contract look at /proc and /sys."""

FEATURES = "docs/reference/driver-contract.md names them all"


@dataclass(frozen=True)
class Wanted:
    """What a host is tried with."""

    guest: str | None = None
    profile: str | None = None
    features: tuple[str, ...] = ()  # shell patterns; none for all


def plan(inventory: Inventory, contract: Catalogue, host: str, wanted: Wanted) -> Plan:
    """The plan for a host with a guest and a profile, by default the first pair of its matrix that can run.

    Raises `ConfigurationError` for names that the inventory has not and for a pair that cannot be, `NothingToRun`
    when the matrix holds no pair for this host.
    """
    guest, profile = wanted.guest, wanted.profile
    _known("host", host, inventory.hosts)
    if guest is not None:
        _known("guest", guest, inventory.guests)
    if profile is not None:
        _known("profile", profile, inventory.profiles)
    if guest is not None and profile is not None:
        cell = Cell(host, guest, profile)
        reason = _reason(inventory, cell)
        if reason is not None:
            raise ConfigurationError(f"{cell} cannot be: {reason}")
    else:
        cell = next(_suitable(inventory, host, guest, profile), None) or _nothing(host)
    checks = tuple(check.id for check in contract.checks if _is_one_of(check.feature, wanted.features))
    if not checks:
        raise NothingToRun(f"no feature of a driver is called {' or '.join(wanted.features)}", hint=FEATURES)
    expected_s = len(checks) * (CHECK_S + BOOT_S / 4)
    planned = PlannedCell(cell, inventory.hosts[host].realness, checks, None, expected_s)
    return Plan((planned,), expected_s)


def _is_one_of(feature: str, patterns: tuple[str, ...]) -> bool:
    return not patterns or any(fnmatchcase(feature, pattern) for pattern in patterns)


def _suitable(inventory: Inventory, host: str, guest: str | None, profile: str | None) -> Iterator[Cell]:
    for cell, _ in inventory.matrix.cells():
        wanted = cell.host == host and guest in (None, cell.guest) and profile in (None, cell.profile)
        if wanted and _reason(inventory, cell) is None:
            yield cell


def _reason(inventory: Inventory, cell: Cell) -> str | None:
    """Why the contract cannot be tried with that cell."""
    entry, hardware = inventory.guests[cell.guest], inventory.profiles[cell.profile]
    if entry.family != FAMILY:
        return f"the tests of the contract need a {FAMILY} guest, and {cell.guest} is {entry.family}"
    driver = hypervisors.load(inventory.hosts[cell.host].driver)
    return driver.refuses(hardware) or entry.lacks(hardware) or entry.missing()


def _nothing(host: str) -> Cell:
    raise NothingToRun(
        f"the matrix has no cell of {host} with a {FAMILY} guest that can run",
        hint="name a guest and a profile: --guest GUEST --profile PROFILE",
    )


def _known(kind: str, name: str, known: Iterable[str]) -> None:
    names = sorted(known)
    if name not in names:
        raise ConfigurationError(f'no {kind} "{name}"', hint=f"known: {', '.join(names)}")
