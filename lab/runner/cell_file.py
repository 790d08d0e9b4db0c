"""The result of one attempt at one cell, read back by the controller from what the cell's process wrote."""

from __future__ import annotations

from collections import Counter

from lab import log
from lab.results import store
from lab.runner.work import CellResult, CellWork

_log = log.get(__name__)


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
