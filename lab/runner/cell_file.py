"""The result of one attempt at one cell: `cell.json`, and a record for every check that was planned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from lab import log, pytest_plugin
from lab.contracts import Realness
from lab.errors import Blame
from lab.results import store
from lab.results.documents import CellDocument
from lab.results.record import Outcome, Record, feature_of_driver
from lab.runner.work import CellResult, CellWork

_log = log.get(__name__)

REASON_LIMIT = 2000


@dataclass(frozen=True)
class Fault:
    """What ended a cell outside of any check."""

    outcome: Outcome  # of the check that it is noted at
    blame: Blame
    reason: str


@dataclass(frozen=True)
class Circumstances:
    """What is known of a cell beside its records."""

    realness: Realness
    seconds: float
    known: Mapping[str, object] = field(default_factory=dict)  # further keys of `cell.json`


def result(work: CellWork, seconds: float) -> CellResult | None:
    """What the attempt wrote, or `None` when its process did not get as far as `cell.json`."""
    attempt = store.read_attempt(work.layout, work.run)
    for problem in attempt.problems:
        _log.error("attempt.problem", problem=problem)
    document = attempt.document
    if document is None:
        return None
    return CellResult(
        cell=work.cell,
        attempt=work.attempt,
        outcome=document.outcome,
        blame=document.blame,
        reason=document.reason,
        seconds=seconds,
        warm=any(document.warm),
        counts=tuple(Counter(record.outcome for record in attempt.records).items()),
    )


def of_killed(work: CellWork, suites: Path, reason: str, seconds: float) -> CellResult:
    """Write what the killed process of a cell could not write any more. Raises `LabDiskFull`, `RunError`.

    The checks that it had judged keep their records; the next one is `broken` by the lab, the rest `blocked`.
    """
    work.layout.root.mkdir(parents=True, exist_ok=True)
    attempt = store.read_attempt(work.layout, work.run)
    fault = Fault(Outcome.BROKEN, Blame.LAB, reason)
    realness = attempt.realness or work.realness
    write_missing(work, suites, fault, realness)
    write(work, Circumstances(realness, seconds), fault=fault)
    found = result(work, seconds)
    if found is None:
        return CellResult(work.cell, work.attempt, fault.outcome, fault.blame, fault.reason, seconds)
    return found


def write_missing(work: CellWork, suites: Path, fault: Fault, realness: Realness) -> None:
    """A record that says why for every check that has none yet: the first is decided by the fault, the rest blocked.

    Where the fault is noted already, by a check that met it, all are blocked. Raises `LabDiskFull`, `RunError`.
    """
    found = store.read_attempt(work.layout, work.run).records
    done = {record.check for record in found}
    noted = any(record.outcome is Outcome.BLOCKED or record.reason == fault.reason for record in found)
    file = store.RecordFile(work.layout.records)
    reason = fault.reason[:REASON_LIMIT]
    for position, check in enumerate(check for check in work.checks if check not in done):
        decides = position == 0 and not noted
        file.append(
            Record(
                run=work.run,
                cell=work.cell.name,
                feature=_feature_of(check, work, suites),
                check=check,
                attempt=work.attempt,
                outcome=fault.outcome if decides else Outcome.BLOCKED,
                blame=fault.blame,
                reason=reason if decides else f"the cell was stopped by: {reason}",
                realness=realness,
                warm=False,
                started=datetime.now(UTC),
                seconds=0.0,
            )
        )


def _feature_of(check: str, work: CellWork, suites: Path) -> str:
    if work.qualifies:
        return feature_of_driver(check)
    return pytest_plugin.feature_of(check, suites)


def write(work: CellWork, about: Circumstances, *, fault: Fault | None = None) -> None:
    """Write `cell.json` in one step: it is there whole, or the cell did not finish. Raises `LabDiskFull`, `RunError`.

    A `fault` that no check was left to be noted at is told by the cell itself.
    """
    records = store.read_attempt(work.layout, work.run).records
    decisive = max(records, key=lambda record: record.outcome.badness, default=None)
    outcome = decisive.outcome if decisive else None
    blame, reason = (decisive.blame, decisive.reason) if decisive else (Blame.NOBODY, "")
    if fault is not None and (outcome is None or outcome.badness < fault.outcome.badness):
        outcome, blame, reason = fault.outcome, fault.blame, fault.reason
    bad = outcome is not None and outcome.badness > Outcome.PASSED.badness
    content = {
        "schema": 1,
        "run": work.run,
        "cell": work.cell.name,
        "attempt": work.attempt,
        "realness": about.realness,
        "warm": [],
        "phases": {},
        "insecure": [],
        **about.known,
        "seconds": round(about.seconds, 3),
        "outcome": outcome,
        "blame": blame,
        "reason": reason if bad else "",
        "command": work.command,
        "known_issues": list(work.known_issues),
    }
    store.write_document(work.layout.cell_json, CellDocument.model_validate(content))
