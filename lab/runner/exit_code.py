"""The exit code of a run: as expected, the product failed, the lab was at fault, nothing was run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from enum import Enum, auto

from lab.errors import ExitCode
from lab.results.documents import KnownIssue
from lab.results.judgement import Judgement, of_attempts
from lab.results.record import Outcome, Record
from lab.results.store import CellResult, Run
from lab.runner.plan import Plan


def of(run: Run, plan: Plan) -> ExitCode:
    """What all attempts at every cell say; a failure that a known issue explains is as expected.

    A retry never hides a failure. The product's failure outranks the lab's fault, because somebody must look
    at it either way and it is the one that the night was for. A planned check without a judgement of the
    product is the lab's fault, unless somebody chose to skip it.
    """
    cells = {cell.cell: cell for cell in run.cells()}
    if not any(cell.records for cell in cells.values()):
        return ExitCode.NOTHING_RUN
    today = run.document.started.date()
    states = [state for cell in cells.values() for state in _states(cell, today)]
    if _State.FAILED in states:
        return ExitCode.PRODUCT_FAILED
    missing = any(
        planned.excluded is None and not _has_all(cells.get(planned.cell), planned.checks) for planned in plan.cells
    )
    return ExitCode.LAB_AT_FAULT if missing or _State.UNJUDGED in states else ExitCode.AS_EXPECTED


class _State(Enum):
    """What a check in a cell means for the exit code."""

    FAILED = auto()
    UNJUDGED = auto()
    FINE = auto()


def _states(cell: CellResult, today: date) -> list[_State]:
    by_check: dict[str, list[Record]] = {}
    for record in cell.records:
        by_check.setdefault(record.check, []).append(record)
    document = cell.last.document
    issues = document.known_issues if document else []
    return [_state(records, issues, today) for records in by_check.values()]


def _state(records: list[Record], issues: Sequence[KnownIssue], today: date) -> _State:
    judgement = of_attempts(records).judgement
    record = records[-1]
    if judgement is Judgement.FAILED:
        explained = any(issue.covers(record.cell, record.feature, record.check, today) for issue in issues)
        return _State.FINE if explained else _State.FAILED
    if judgement is Judgement.UNJUDGED and record.outcome is not Outcome.SKIPPED:
        return _State.UNJUDGED
    return _State.FINE


def _has_all(cell: CellResult | None, planned: Sequence[str]) -> bool:
    found = {record.check for record in cell.records} if cell else set()
    return found.issuperset(planned)
