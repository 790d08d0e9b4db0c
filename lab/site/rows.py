"""The rows of the tables of checks: what a check left in a cell, ready to be shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from lab.contracts import Realness
from lab.results.plain import one_line, visible
from lab.results.record import Outcome, Record
from lab.results.verdicts import CheckState, Verdict
from lab.site import words
from lab.site.names import evidence_path
from lab.site.words import EXPECTED, NOT_RUN, OBSERVED, OUTCOMES, VERDICTS, Mark

LONGEST_REASON = 600


@dataclass(frozen=True)
class Tried:
    """One attempt in the list of attempts at a check."""

    number: int
    mark: Mark
    href: str  # of its evidence


@dataclass(frozen=True)
class CheckRow:
    """One check."""

    check: str
    sentence: str
    mark: Mark
    blame: str  # "" when nobody is to blame
    reason: str
    measured: tuple[str, ...]
    seconds: str
    warm: bool
    when: datetime | None
    run: str
    href: str  # of the evidence; "" when there is none
    tried: tuple[Tried, ...]


@dataclass(frozen=True)
class FeatureRow:
    """One feature of a cell with its checks."""

    feature: str
    verdict: Verdict
    observed: Mark
    expected: Mark
    word: Mark
    checks: tuple[CheckRow, ...]


def feature_row(verdict: Verdict) -> FeatureRow:
    """The row of a feature in a cell."""
    return FeatureRow(
        feature=verdict.feature,
        verdict=verdict,
        observed=OBSERVED[verdict.observed],
        expected=EXPECTED[verdict.expected],
        word=VERDICTS[verdict.word],
        checks=tuple(_check_row(state) for state in verdict.checks),
    )


def _check_row(state: CheckState) -> CheckRow:
    record = state.judged.decided_by
    if record is None:
        return _never_run(state.check)
    return record_row(record, state.records, flaky=state.judged.flaky)


def record_row(record: Record, all_attempts: Sequence[Record] = (), *, flaky: bool = False) -> CheckRow:
    """The row of one record; the attempts are listed when there was more than one."""
    tried = tuple(
        Tried(each.attempt, OUTCOMES[each.outcome], evidence_path(each.run, each.cell, each.attempt))
        for each in all_attempts
    )
    return CheckRow(
        check=visible(record.check),
        sentence=_sentence(record.check),
        mark=OUTCOMES[record.outcome],
        blame="" if record.outcome is Outcome.PASSED or record.blame.value == "none" else record.blame.value,
        reason=one_line(record.reason, at_most=LONGEST_REASON),
        measured=tuple(_measured(record)),
        seconds=words.seconds(record.seconds),
        warm=record.warm,
        when=record.started,
        run=record.run,
        href=evidence_path(record.run, record.cell, record.attempt),
        tried=tried if len(tried) > 1 or flaky else (),
    )


@lru_cache(maxsize=4096)
def _sentence(check: str) -> str:
    return one_line(words.sentence(check), at_most=160)


def _measured(record: Record) -> Iterable[str]:
    for name, measure in record.measured.items():
        yield one_line(f"{name}: {words.number(measure.value)} {measure.unit}", at_most=80)


def _never_run(check: str) -> CheckRow:
    return CheckRow(
        check=visible(check),
        sentence=_sentence(check),
        mark=NOT_RUN,
        blame="",
        reason=NOT_RUN.meaning,
        measured=(),
        seconds="",
        warm=False,
        when=None,
        run="",
        href="",
        tried=(),
    )


def realness_of(value: str) -> Realness | None:
    """The realness of a word in a plan, or `None` when it is none."""
    return next((realness for realness in Realness if realness.value == value), None)
