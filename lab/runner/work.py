"""Work: what a cell's process is told, and what it tells while it runs."""

from __future__ import annotations

from dataclasses import dataclass

from lab.contracts import Cell, Owner, Realness
from lab.errors import Blame
from lab.inventory.models import Inventory
from lab.results.documents import KnownIssue
from lab.results.layout import AttemptLayout
from lab.results.record import Outcome, is_of_driver


@dataclass(frozen=True)
class CellWork:
    """One attempt at one cell; small enough to send to another process or machine."""

    run: str
    cell: Cell
    checks: tuple[str, ...]
    inventory: Inventory  # only what this cell needs
    layout: AttemptLayout
    owner: Owner
    realness: Realness  # as planned; what the connected host says can only lower it
    use_warm: bool
    command: str  # the command line that runs this cell alone
    known_issues: tuple[KnownIssue, ...]
    machines: int = 1  # how many of them run together at most

    @property
    def attempt(self) -> int:
        return self.layout.number

    @property
    def qualifies(self) -> bool:
        """Whether the checks are tests of the contract for drivers, not of a guest."""
        return bool(self.checks) and is_of_driver(self.checks[0])


@dataclass(frozen=True)
class Progress:
    """One step of a running cell."""

    cell: Cell
    phase: str
    done: int = 0  # checks
    total: int = 0


@dataclass(frozen=True)
class Unwritten:
    """A cell could not write its result, and why: a disk is full, a folder is gone."""

    cell: Cell
    blame: Blame
    reason: str


@dataclass(frozen=True)
class CellResult:
    """How an attempt at a cell ended. There is one for each, whatever happens."""

    cell: Cell
    attempt: int
    outcome: Outcome | None  # the worst of its records; none when the cell was interrupted
    blame: Blame
    reason: str
    seconds: float
    warm: bool = False
    counts: tuple[tuple[Outcome, int], ...] = ()
    undone: bool = True  # its process itself removed what it had made
