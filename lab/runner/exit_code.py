"""The exit code of a run: as expected, the product failed, the lab was at fault, nothing was run."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

from lab.errors import ExitCode
from lab.results.record import Outcome, Record
from lab.results.store import CellResult, Run
from lab.runner.plan import Plan


def of(run: Run, plan: Plan) -> ExitCode:
    """What the last attempt at every cell says; a failure that a known issue explains is as expected.

    The product's failure outranks the lab's fault, because somebody must look at it either way and it is
    the one that the night was for. A planned check without a record is the lab's fault.
    """
    cells = {cell.cell: cell for cell in run.cells()}
    if not any(cell.records for cell in cells.values()):
        return ExitCode.NOTHING_RUN
    today = run.document.started.date()
    if any(_unexplained_failures(cell, today) for cell in cells.values()):
        return ExitCode.PRODUCT_FAILED
    for planned in plan.cells:
        if planned.excluded is not None or not planned.checks:
            continue
        found = cells.get(planned.cell)
        if found is None or _lab_at_fault(found.last.records, planned.checks):
            return ExitCode.LAB_AT_FAULT
    return ExitCode.AS_EXPECTED


def _unexplained_failures(cell: CellResult, today: date) -> list[Record]:
    document = cell.last.document
    issues = document.known_issues if document else []
    return [
        record
        for record in cell.last.records
        if record.outcome is Outcome.FAILED
        and not any(issue.covers(record.cell, record.feature, record.check, today) for issue in issues)
    ]


def _lab_at_fault(records: Iterable[Record], planned: tuple[str, ...]) -> bool:
    by_check = {record.check: record.outcome for record in records}
    return any(by_check.get(check) in (None, Outcome.BROKEN) for check in planned)
