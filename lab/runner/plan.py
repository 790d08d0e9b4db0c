"""The plan: which cells a run will start, with which checks, what is excluded and why, how long it may take."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import translate
from functools import cache
from pathlib import Path
from typing import Any

from lab import hypervisors
from lab.catalogue import Catalogue
from lab.contracts import Cell, Realness
from lab.errors import ConfigurationError, RunError
from lab.inventory.models import Inventory
from lab.provisioning import hosts
from lab.runner.selection import Selection

SCHEMA = 1

LEVELS_OF_SUITE: Mapping[str, tuple[str, ...]] = {
    "smoke": ("smoke",),
    "conformance": ("smoke", "conformance"),
    "performance": ("performance",),
}
"""The levels of checks that a suite runs: what is good enough for a smoke test is part of conformance."""

# Seconds on one processor under emulation, measured on a machine of 2026; only for the first estimate.
BOOT_S = 30.0
CLONE_S = 3.0
CHECK_S = 0.7
MADE_HOST_S = 30.0  # more, on a host that the lab makes: restoring it, and all of the cell on a slower machine


@dataclass(frozen=True, slots=True)
class PlannedCell:
    """One cell of a plan."""

    cell: Cell
    realness: Realness
    checks: tuple[str, ...]  # ids; shared between cells; empty when excluded
    excluded: str | None  # why the cell is left out
    expected_s: float = 0.0
    machines: int = 1  # how many run together at most


@dataclass(frozen=True)
class Plan:
    """Every cell that was asked for, in the order of the matrix."""

    cells: tuple[PlannedCell, ...]
    estimate_s: float


def make(
    inventory: Inventory, catalogue: Catalogue, *, suite: str | None, select: Sequence[str], exclude: Sequence[str]
) -> Plan:
    """The plan of an inventory. Raises `NothingToRun` and `ConfigurationError` for a selection that fits nothing."""
    if suite is not None and suite not in LEVELS_OF_SUITE:
        raise ConfigurationError(f'no suite "{suite}"', hint=_hint(suite))
    selection = Selection(select, exclude)
    reasons = _Reasons(inventory)
    checks = _Checks(catalogue, suite)
    cells = []
    known = inventory.hosts
    for cell, suites in inventory.matrix.cells():
        name = cell.name
        if not selection.wants(name):
            continue
        chosen = checks.of(suites)
        reason = reasons.of(cell, name) or chosen.missing
        realness = known[cell.host].realness
        if reason is None:
            expected_s = chosen.expected_s + reasons.host_s(cell.host)
            cells.append(PlannedCell(cell, realness, chosen.ids, None, expected_s, chosen.machines))
        else:
            cells.append(PlannedCell(cell, realness, (), reason))
    selection.judge(inventory.matrix)
    return Plan(tuple(cells), _estimate(cells, inventory))


def expecting(plan: Plan, inventory: Inventory, measured: Mapping[str, float]) -> Plan:
    """The same plan, with what cells of these names took in an earlier run (seconds) instead of a guess."""
    cells = tuple(
        planned
        if planned.excluded is not None or planned.cell.name not in measured
        else replace(planned, expected_s=measured[planned.cell.name])
        for planned in plan.cells
    )
    return Plan(cells, _estimate(cells, inventory))


# ---------------------------------------------------------------------------------------------------------
# What is left out


class _Reasons:
    """Why cells are excluded, or take longer; what many cells have in common is found out once."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        rules = inventory.matrix.exclude
        self._rules = [(re.compile(translate(rule.cells)), rule.reason) for rule in rules]
        self._any_rule = re.compile("|".join(pattern.pattern for pattern, _ in self._rules) or r"(?!)")
        self._of_parts = cache(self._find_of_parts)
        self._of_host = cache(self._find_of_host)
        self.host_s = cache(self._find_host_s)  # what a cell takes longer on the host of that name

    def of(self, cell: Cell, name: str) -> str | None:
        if self._any_rule.match(name):
            return next(reason for pattern, reason in self._rules if pattern.match(name))
        host = self._inventory.hosts[cell.host]
        return self._of_parts(host.driver, cell.guest, cell.profile) or self._of_host(host.name)

    def _find_of_parts(self, driver: str, guest: str, profile: str) -> str | None:
        """Why no host of that driver can run that guest on that hardware; the hypervisor's own reason first."""
        hardware, entry = self._inventory.profiles[profile], self._inventory.guests[guest]
        return hypervisors.load(driver).refuses(hardware) or entry.lacks(hardware) or entry.missing()

    def _find_of_host(self, name: str) -> str | None:
        """Why the lab cannot make that host on this machine, where it is one that it makes."""
        problem = hosts.lacks(self._inventory.hosts[name])
        return None if problem is None else problem.what

    def _find_host_s(self, name: str) -> float:
        return MADE_HOST_S if hosts.made_from(self._inventory.hosts[name]) else 0.0


# ---------------------------------------------------------------------------------------------------------
# Which checks


@dataclass(frozen=True)
class _Chosen:
    ids: tuple[str, ...]
    expected_s: float
    missing: str | None = None  # why there are none
    machines: int = 1


@dataclass
class _Checks:
    """The checks of a set of suites, narrowed to the suite that was asked for; worked out once for each set."""

    catalogue: Catalogue
    suite: str | None
    _known: dict[tuple[str, ...], _Chosen] = field(default_factory=dict)

    def of(self, suites: tuple[str, ...]) -> _Chosen:
        if suites not in self._known:
            self._known[suites] = self._choose(suites)
        return self._known[suites]

    def _choose(self, suites: tuple[str, ...]) -> _Chosen:
        # What is named conformance alone is too slow for a smoke test, although its checks hold some of that level.
        asked = None if self.suite is None else set(LEVELS_OF_SUITE[self.suite])
        wanted = [suite for suite in suites if asked is None or asked.issuperset(LEVELS_OF_SUITE[suite])]
        levels = {level for suite in wanted for level in LEVELS_OF_SUITE[suite]}
        chosen = [check for check in self.catalogue.checks if check.level in levels]
        if not levels:
            return _Chosen((), 0.0, f"the matrix gives this cell no suite {self.suite}")
        boots = 1 + any(check.cold for check in chosen)
        expected_s = boots * BOOT_S + CLONE_S + len(chosen) * CHECK_S
        machines = max((check.machines for check in chosen), default=1)
        return _Chosen(tuple(check.id for check in chosen), expected_s, machines=machines)


def _hint(suite: str) -> str:
    close = difflib.get_close_matches(suite, LEVELS_OF_SUITE, n=1)
    meant = f'did you mean "{close[0]}"? ' if close else ""
    return f"{meant}known: {', '.join(LEVELS_OF_SUITE)}"


# ---------------------------------------------------------------------------------------------------------
# How long


def _estimate(cells: Sequence[PlannedCell], inventory: Inventory) -> float:
    """Seconds for all cells: hosts work side by side, those without a number of their own share this machine."""
    of_hosts: dict[str | None, float] = {}
    longest = 0.0
    for planned in cells:
        limited = inventory.hosts[planned.cell.host].cells_at_once is not None
        key = planned.cell.host if limited else None
        of_hosts[key] = of_hosts.get(key, 0.0) + planned.expected_s
        longest = max(longest, planned.expected_s)
    waits = [longest]
    for host, seconds in of_hosts.items():
        at_once = inventory.hosts[host].cells_at_once if host is not None else len(os.sched_getaffinity(0))
        waits.append(seconds / (at_once or 1))
    return round(max(waits), 1)


def longest_host_first(planned: Sequence[PlannedCell]) -> list[PlannedCell]:
    """The cells in the order in which to start them: a host whose cells take long is not left for the end.

    The cells of one host stay in their order.
    """
    longest: dict[str, float] = {}
    for each in planned:
        longest[each.cell.host] = max(longest.get(each.cell.host, 0.0), each.expected_s)
    return sorted(planned, key=lambda each: -longest[each.cell.host])


# ---------------------------------------------------------------------------------------------------------
# As a document


def as_json(plan: Plan) -> dict[str, Any]:
    """The plan as `lab plan --json` prints it and a run keeps it; the keys are an interface."""
    listed = {checks: list(checks) for checks in {planned.checks for planned in plan.cells}}  # shared here too
    cells = [
        {
            "cell": planned.cell.name,
            "host": planned.cell.host,
            "guest": planned.cell.guest,
            "profile": planned.cell.profile,
            "realness": planned.realness.value,
            "checks": listed[planned.checks],
            "excluded": planned.excluded,
            "expected_s": planned.expected_s,
            "machines": planned.machines,
        }
        for planned in plan.cells
    ]
    return {"schema": SCHEMA, "cells": cells, "estimate_s": plan.estimate_s}


def from_json(path: Path) -> Plan:
    """The plan that a run keeps in that file. Raises `RunError`."""
    try:
        document = json.loads(path.read_bytes())
        if document["schema"] != SCHEMA:
            raise RunError(f"{path}: schema {document['schema']} is not {SCHEMA}, another version wrote it")
        cells = tuple(_planned(cell) for cell in document["cells"])
        return Plan(cells, float(document["estimate_s"]))
    except OSError as reason:
        raise RunError(f"{path} cannot be read: {reason.strerror}") from reason
    except (ValueError, KeyError, TypeError, AttributeError, ConfigurationError) as reason:
        raise RunError(f"{path} is not a plan: {reason}") from reason


def _planned(cell: Mapping[str, Any]) -> PlannedCell:
    return PlannedCell(
        cell=Cell.parse(cell["cell"]),
        realness=Realness(cell["realness"]),
        checks=tuple(map(str, cell["checks"])),
        excluded=None if cell["excluded"] is None else str(cell["excluded"]),
        expected_s=float(cell.get("expected_s", 0.0)),
        machines=int(cell.get("machines", 1)),
    )
