"""The list of runs, and the page of each: when, where, versions, plan and what was done of it, what changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lab.contracts import Realness
from lab.results import diff
from lab.results.plain import one_line
from lab.results.record import Outcome, Record
from lab.results.store import Attempt, CellResult, Planned, Run
from lab.site import evidence, rows, tables, words
from lab.site.engine import Pages, safe
from lab.site.names import evidence_path, run_path
from lab.site.words import CHANGES, NOT_RUN, OUTCOMES, Mark


@dataclass(frozen=True)
class PlanRow:
    """One cell of a run: what was planned, what was done of it."""

    cell: str
    path: str  # of the cell's page
    mark: Mark
    blame: str
    reason: str
    planned: int
    recorded: int
    never_run: tuple[str, ...]
    outcomes: tuple[tuple[Mark, int], ...]
    attempts: tuple[tuple[int, str], ...]  # number and evidence page


def write_all(pages: Pages) -> None:
    """Write `runs.html` and a page for each run."""
    runs = pages.site.runs
    listed = []
    for run in runs:
        kinds = [kind for kind in Realness if any(attempt.realness is kind for attempt in _attempts(run))]
        listed.append((run, kinds, len(run.cells()), _outcomes(run.records()), _ended(run)))
    pages.page("runs.html", "runs.html.j2", {"title": "Runs", "nav": "Runs", "runs": listed})
    for position, run in enumerate(runs):
        _write(pages, run, _before(run, runs[position + 1 :]))


def _before(run: Run, older: Sequence[Run]) -> Run | None:
    return next((each for each in older if each.document.inventory == run.document.inventory), None)


def _write(pages: Pages, run: Run, before: Run | None) -> None:
    document = run.document
    found = diff.diff(before, run) if before else {}
    by_realness = _rows(run)
    facts = {
        "Inventory": document.inventory,
        "Command": document.command,
        "Lab's version": document.version,
        "Exit code": document.exit_code,
        "Machine": document.machine,
        "Hypervisors": _hypervisors(run),
    }
    context = {
        "title": f"Run {run.id}",
        "nav": "Runs",
        "run": run,
        "before": before,
        "changes": [(CHANGES[change], entries) for change, entries in found.items() if entries],
        "ended": _ended(run),
        "outcomes": _outcomes(run.records(), sum(len(row.never_run) for _, of_kind in by_realness for row in of_kind)),
        "problems": run.problems(),
        "facts": safe(tables.facts(evidence.pairs(facts))),
        "sections": by_realness,
        "excluded": [planned for planned in run.planned() if planned.excluded is not None],
    }
    pages.page(run_path(run), "run.html.j2", context)


def _attempts(run: Run) -> Iterable[Attempt]:
    return (attempt for cell in run.cells() for attempt in cell.attempts)


def _hypervisors(run: Run) -> list[str]:
    documents = [attempt.document for attempt in _attempts(run) if attempt.document]
    hosts = [document.host for document in documents if document.host]
    names = {" ".join(word for word in (host.product, host.version, host.accelerator) if word) for host in hosts}
    return sorted(names)


def _ended(run: Run) -> str:
    document = run.document
    if document.finished is None:
        return "It never said that it ended: it still runs, or it was killed."
    took = words.seconds((document.finished - document.started).total_seconds())
    return f"It took {took}" + (f" and exited with {document.exit_code}." if document.exit_code is not None else ".")


def _outcomes(records: Iterable[Record], never_run: int = 0) -> list[tuple[Mark, int]]:
    counts = Counter(record.outcome for record in records)
    found = [(OUTCOMES[outcome], counts[outcome]) for outcome in reversed(Outcome) if counts[outcome]]
    return [*found, *([(NOT_RUN, never_run)] if never_run else [])]


def _rows(run: Run) -> list[tuple[Realness, list[PlanRow]]]:
    planned = {(cell.cell, cell.realness): cell for cell in run.planned() if cell.excluded is None}
    found: dict[Realness, list[PlanRow]] = {}
    seen = set()
    for result in run.cells():
        for realness in Realness:
            attempts = [attempt for attempt in result.attempts if attempt.realness is realness]
            if attempts:
                key = (result.cell.name, realness.value)
                seen.add(key)
                found.setdefault(realness, []).append(_row(run, result, attempts, planned.get(key)))
    for key, cell in planned.items():
        realness_of_plan = rows.realness_of(cell.realness)
        if key not in seen and realness_of_plan is not None and cell.checks:
            found.setdefault(realness_of_plan, []).append(_never_started(cell))
    return [(realness, found[realness]) for realness in Realness if realness in found]


def _row(run: Run, result: CellResult, attempts: Sequence[Attempt], planned: Planned | None) -> PlanRow:
    records = [record for attempt in attempts for record in attempt.records]
    done = {record.check for record in records}
    worst = max(attempts, key=lambda attempt: _badness(attempt))
    document = worst.document
    name = result.cell.name
    return PlanRow(
        cell=name,
        path=f"cells/{attempts[0].realness}/{name}.html",
        mark=evidence.attempt_mark(worst),
        blame=document.blame.value if document and document.blame.value != "none" else "",
        reason=one_line(document.reason) if document else "",
        planned=len(planned.checks) if planned else 0,
        recorded=len(done),
        never_run=tuple(check for check in (planned.checks if planned else ()) if check not in done),
        outcomes=tuple(_outcomes(records)),
        attempts=tuple(
            (attempt.layout.number, evidence_path(run.id, name, attempt.layout.number)) for attempt in attempts
        ),
    )


def _badness(attempt: Attempt) -> int:
    document = attempt.document
    return document.outcome.badness if document and document.outcome else -1


def _never_started(planned: Planned) -> PlanRow:
    return PlanRow(
        cell=planned.cell,
        path=f"cells/{planned.realness}/{planned.cell}.html",
        mark=NOT_RUN,
        blame="",
        reason="",
        planned=len(planned.checks),
        recorded=0,
        never_run=planned.checks,
        outcomes=(),
        attempts=(),
    )
