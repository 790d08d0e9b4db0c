"""What the records of one check in one cell say about the product; the lab's own faults say nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from lab.errors import Blame
from lab.results.record import Outcome, Record

_NOT_THE_PRODUCT = frozenset({Blame.LAB, Blame.CONFIGURATION, Blame.SUITE})


class Judgement(StrEnum):
    """Of a check in a cell, over all its attempts."""

    PASSED = "passed"
    FAILED = "failed"
    UNSUPPORTED = "unsupported"  # the product says itself that it cannot
    NOT_APPLICABLE = "not_applicable"
    UNJUDGED = "unjudged"  # blocked, broken, skipped, never run: nothing is known of the product


_OF_OUTCOME = {
    Outcome.PASSED: Judgement.PASSED,
    Outcome.FAILED: Judgement.FAILED,
    Outcome.UNSUPPORTED: Judgement.UNSUPPORTED,
    Outcome.NOT_APPLICABLE: Judgement.NOT_APPLICABLE,
    Outcome.SKIPPED: Judgement.UNJUDGED,
    Outcome.BLOCKED: Judgement.UNJUDGED,
    Outcome.BROKEN: Judgement.UNJUDGED,
}
# A retry never hides a failure, and one attempt with a lab's fault does not hide what another one saw.
_WORST_FIRST = (Judgement.FAILED, Judgement.UNSUPPORTED, Judgement.PASSED, Judgement.NOT_APPLICABLE)


def of_record(record: Record) -> Judgement:
    """What one record says. A failure that is blamed on lab, suite or inventory is none of the product."""
    if record.outcome is Outcome.FAILED and record.blame in _NOT_THE_PRODUCT:
        return Judgement.UNJUDGED
    return _OF_OUTCOME[record.outcome]


@dataclass(frozen=True)
class Judged:
    """The judgement over all attempts, with the record that decided it."""

    judgement: Judgement
    flaky: bool  # passed in one attempt, failed in another
    decided_by: Record | None  # None: there is no record at all


def of_attempts(records: Iterable[Record]) -> Judged:
    """What all attempts at one check in one cell say together, the worst of them first."""
    last: dict[Judgement, Record] = {}
    for record in records:
        last[of_record(record)] = record
    flaky = Judgement.PASSED in last and Judgement.FAILED in last
    for judgement in _WORST_FIRST:
        if judgement in last:
            return Judged(judgement, flaky, last[judgement])
    return Judged(Judgement.UNJUDGED, False, last.get(Judgement.UNJUDGED))
