"""Verdicts: what was seen of a feature in a cell, beside what the vendors state, over one run or several.

For every check the newest run that judged it decides; a fault of the lab judges nothing. The feature is then
rolled up worst first over its checks. Records of different realness never meet in one verdict.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

from lab.contracts import Realness
from lab.results.documents import CellDocument, KnownIssue
from lab.results.judgement import Judged, Judgement, of_attempts
from lab.results.record import Outcome, Record
from lab.results.statements import Expectation, Expected, Statement, Statements, beside, expectation, pair_key
from lab.results.store import Attempt, Run

STALE_AFTER = timedelta(days=30)


class Observed(StrEnum):
    """What was seen of a feature in a cell."""

    WORKS = "works"
    PARTIAL = "partial"  # some of it works, or all of it only sometimes
    BROKEN = "broken"
    UNKNOWN = "unknown"
    NOT_APPLICABLE = "n/a"  # the pair cannot have it, or says itself that it cannot (then the verdict is a gap)


class Word(StrEnum):
    """Observed beside expected, in one word."""

    REGRESSION = "regression"  # it worked in an earlier run
    BROKEN_CLAIM = "broken_claim"  # stated as supported, fails
    CONFLICT = "conflict"  # two sources disagree; both are shown
    UNDOCUMENTED_FAILURE = "undocumented_failure"  # fails, and nobody states that it works
    DOCUMENTED_GAP = "documented_gap"  # does not work, and a vendor or the product itself says so
    UNTESTED_CLAIM = "untested_claim"  # a vendor states something, nothing was seen
    UNDOCUMENTED_PASS = "undocumented_pass"  # noqa: S105
    CONFIRMED = "confirmed"
    NOT_APPLICABLE = "not_applicable"
    NO_DATA = "no_data"


@dataclass(frozen=True)
class CheckState:
    """What is known of one check of the feature."""

    check: str
    judged: Judged
    records: tuple[Record, ...]  # all attempts of the run that decides
    run: Run | None
    attempt: Attempt | None  # the one that decided
    worked_before: bool  # the run before that judged it saw it pass


@dataclass(frozen=True)
class Verdict:
    """Of a feature in a cell."""

    cell: str
    realness: Realness
    feature: str
    observed: Observed
    expected: Expected
    word: Word
    flaky: bool
    stale: bool
    observed_at: datetime | None  # the oldest of the records that decided
    known_issue: KnownIssue | None
    checks: tuple[CheckState, ...]
    statements: tuple[Statement, ...]

    @property
    def reason(self) -> str:
        """Why it is not simply good: the reason of the worst check that gave one."""
        deciding = [state.judged.decided_by for state in self.checks]
        worst = sorted((record for record in deciding if record), key=lambda record: -record.outcome.badness)
        return next((record.reason for record in worst if record.reason), "")

    def as_json(self) -> dict[str, Any]:
        """An entry of the document of `lab verdict --json`."""
        issue = self.known_issue
        return {
            "cell": self.cell,
            "realness": self.realness.value,
            "feature": self.feature,
            "observed": self.observed.value,
            "expected": self.expected.value,
            "verdict": self.word.value,
            "flaky": self.flaky,
            "stale": self.stale,
            "observed_at": self.observed_at.isoformat() if self.observed_at else None,
            "reason": self.reason,
            "known_issue": issue.model_dump(mode="json") if issue else None,
            "records": sum(len(state.records) for state in self.checks),
            "runs": sorted({state.run.id for state in self.checks if state.run}),
            "statements": [statement.as_json() for statement in self.statements],
        }


def as_json(verdicts: Iterable[Verdict]) -> list[dict[str, Any]]:
    """The document of `lab verdict --json`."""
    return [verdict.as_json() for verdict in verdicts]


def compute(
    runs: Sequence[Run],
    *,
    now: datetime,
    statements: Statements | None = None,
    features_of: Mapping[str, str] | None = None,
    stale_after: timedelta = STALE_AFTER,
) -> list[Verdict]:
    """The verdict of every feature in every cell that has a record, a planned check or a statement.

    `features_of` maps a check to its feature; with it a planned check without a record makes its feature
    *unknown*, and records of checks that it does not name any more decide nothing.
    """
    history = _history(runs, features_of)
    book = statements or Statements()
    found: list[Verdict] = []
    for (cell, realness), of_cell in sorted(history.items()):
        stated = book.about(pair_key(of_cell.document)) if of_cell.document else {}
        for feature in sorted({*of_cell.checks, *stated}):
            states = tuple(_state(check, seen) for check, seen in sorted(of_cell.checks.get(feature, {}).items()))
            about = stated.get(feature, ())
            found.append(_verdict(cell, realness, feature, (states, about), (now, stale_after)))
    return found


def of_runs(
    runs: Sequence[Run], *, cell: str = "*", feature: str = "*", features_of: Mapping[str, str] | None = None
) -> list[Verdict]:
    """The verdicts of some runs as they are now, beside the statements that lie next to their inventories.

    `cell` and `feature` are shell patterns, `features_of` is as in `compute`; with the catalogue's, the site shows
    the same. Raises `ConfigurationError` for a bad file of statements.
    """
    stated = beside(run.document.inventory for run in runs)
    found = compute(runs, now=datetime.now(UTC), statements=stated, features_of=features_of)
    return [each for each in found if fnmatchcase(each.cell, cell) and fnmatchcase(each.feature, feature)]


def observe(judgements: Iterable[tuple[Judgement, bool]]) -> Observed:
    """The roll-up over the checks of a feature, each with whether it is flaky; worst first.

    Failures beat everything that is not known, what is not known beats what passed.
    """
    states = list(judgements)
    kinds = {judgement for judgement, _ in states}
    some_pass = Judgement.PASSED in kinds or any(flaky for _, flaky in states)
    if Judgement.FAILED in kinds:
        return Observed.PARTIAL if some_pass else Observed.BROKEN
    if Judgement.UNJUDGED in kinds or not kinds:
        return Observed.UNKNOWN
    if Judgement.PASSED in kinds:
        return Observed.PARTIAL if Judgement.UNSUPPORTED in kinds else Observed.WORKS
    return Observed.NOT_APPLICABLE


def weigh(observed: Observed, expectation: Expectation, *, refused: bool, regressed: bool) -> Word:
    """The word for what was seen beside what is stated.

    `refused`: host or guest says itself that it cannot. `regressed`: what fails now passed before.
    """
    if regressed and observed in (Observed.PARTIAL, Observed.BROKEN, Observed.NOT_APPLICABLE):
        return Word.REGRESSION
    if expectation.conflict:
        return Word.CONFLICT
    if observed is Observed.NOT_APPLICABLE and not refused:
        return Word.NOT_APPLICABLE
    return _WORDS[observed, expectation.expected]


# Not applicable stands here for "refused": the product itself says that it cannot.
_WORDS: Mapping[tuple[Observed, Expected], Word] = {
    (Observed.WORKS, Expected.SUPPORTED): Word.CONFIRMED,
    (Observed.WORKS, Expected.LIMITED): Word.CONFIRMED,
    (Observed.WORKS, Expected.UNSUPPORTED): Word.UNDOCUMENTED_PASS,
    (Observed.WORKS, Expected.UNKNOWN): Word.UNDOCUMENTED_PASS,
    (Observed.PARTIAL, Expected.SUPPORTED): Word.BROKEN_CLAIM,
    (Observed.PARTIAL, Expected.LIMITED): Word.CONFIRMED,
    (Observed.PARTIAL, Expected.UNSUPPORTED): Word.DOCUMENTED_GAP,
    (Observed.PARTIAL, Expected.UNKNOWN): Word.UNDOCUMENTED_FAILURE,
    (Observed.BROKEN, Expected.SUPPORTED): Word.BROKEN_CLAIM,
    (Observed.BROKEN, Expected.LIMITED): Word.BROKEN_CLAIM,
    (Observed.BROKEN, Expected.UNSUPPORTED): Word.DOCUMENTED_GAP,
    (Observed.BROKEN, Expected.UNKNOWN): Word.UNDOCUMENTED_FAILURE,
    (Observed.NOT_APPLICABLE, Expected.SUPPORTED): Word.BROKEN_CLAIM,
    (Observed.NOT_APPLICABLE, Expected.LIMITED): Word.DOCUMENTED_GAP,
    (Observed.NOT_APPLICABLE, Expected.UNSUPPORTED): Word.DOCUMENTED_GAP,
    (Observed.NOT_APPLICABLE, Expected.UNKNOWN): Word.DOCUMENTED_GAP,
    (Observed.UNKNOWN, Expected.SUPPORTED): Word.UNTESTED_CLAIM,
    (Observed.UNKNOWN, Expected.LIMITED): Word.UNTESTED_CLAIM,
    (Observed.UNKNOWN, Expected.UNSUPPORTED): Word.UNTESTED_CLAIM,
    (Observed.UNKNOWN, Expected.UNKNOWN): Word.NO_DATA,
}


@dataclass
class _Seen:
    """Of one check in one cell: each run that has something of it, newest first."""

    runs: list[tuple[Run, tuple[Record, ...], tuple[Attempt, ...]]]


@dataclass
class _CellHistory:
    document: CellDocument | None  # of the newest attempt that has one
    checks: dict[str, dict[str, _Seen]]  # feature -> check -> what was seen


def _history(runs: Sequence[Run], features_of: Mapping[str, str] | None) -> dict[tuple[str, Realness], _CellHistory]:
    history: dict[tuple[str, Realness], _CellHistory] = {}
    for run in sorted(runs, key=lambda run: run.document.started, reverse=True):
        for result in run.cells():
            for realness in {attempt.realness for attempt in result.attempts if attempt.realness}:
                attempts = tuple(attempt for attempt in result.attempts if attempt.realness is realness)
                cell = history.setdefault((result.cell.name, realness), _CellHistory(None, {}))
                _add_attempts(cell, run, attempts, features_of)
        if features_of is not None:
            _add_planned(history, run, features_of)
    return history


def _add_attempts(
    cell: _CellHistory, run: Run, attempts: tuple[Attempt, ...], features_of: Mapping[str, str] | None
) -> None:
    documents = [attempt.document for attempt in attempts if attempt.document]
    if cell.document is None and documents:
        cell.document = documents[-1]
    by_check: dict[tuple[str, str], list[Record]] = {}
    for attempt in attempts:
        for record in attempt.records:
            if features_of is None or record.check in features_of:
                by_check.setdefault((record.feature, record.check), []).append(record)
    for (feature, check), records in by_check.items():
        seen = cell.checks.setdefault(feature, {}).setdefault(check, _Seen([]))
        seen.runs.append((run, tuple(records), attempts))


def _add_planned(history: dict[tuple[str, Realness], _CellHistory], run: Run, features_of: Mapping[str, str]) -> None:
    known = {realness.value: realness for realness in Realness}
    for planned in run.planned():
        realness = known.get(planned.realness)
        if realness is None or planned.excluded is not None:
            continue
        cell = history.setdefault((planned.cell, realness), _CellHistory(None, {}))
        for check in planned.checks:
            if check in features_of:
                cell.checks.setdefault(features_of[check], {}).setdefault(check, _Seen([]))


def _state(check: str, seen: _Seen) -> CheckState:
    judged = [(of_attempts(records), run, records, attempts) for run, records, attempts in seen.runs]
    deciding = [entry for entry in judged if entry[0].judgement is not Judgement.UNJUDGED] or judged
    if not deciding:
        return CheckState(check, Judged(Judgement.UNJUDGED, False, None), (), None, None, worked_before=False)
    newest, run, records, attempts = deciding[0]
    decided = newest.decided_by
    attempt = next((found for found in attempts if decided and found.layout.number == decided.attempt), None)
    worked = len(deciding) > 1 and deciding[1][0].judgement is Judgement.PASSED
    return CheckState(check, newest, records, run, attempt, worked_before=worked)


def _verdict(
    cell: str,
    realness: Realness,
    feature: str,
    known: tuple[tuple[CheckState, ...], tuple[Statement, ...]],
    clock: tuple[datetime, timedelta],
) -> Verdict:
    states, statements = known
    now, stale_after = clock
    bad = [state for state in states if state.judged.judgement in (Judgement.FAILED, Judgement.UNSUPPORTED)]
    observed = observe((state.judged.judgement, state.judged.flaky) for state in states)
    expected = expectation(statements)
    word = weigh(
        observed,
        expected,
        refused=any(state.judged.judgement is Judgement.UNSUPPORTED for state in states),
        regressed=any(state.worked_before for state in bad),
    )
    times = [state.judged.decided_by.started for state in states if state.judged.decided_by]
    observed_at = min(times, default=None)
    return Verdict(
        cell=cell,
        realness=realness,
        feature=feature,
        observed=observed,
        expected=expected.expected,
        word=word,
        flaky=any(state.judged.flaky for state in states),
        stale=observed_at is not None and now - observed_at > stale_after,
        observed_at=observed_at,
        known_issue=_known_issue(states, now),
        checks=states,
        statements=statements,
    )


def _known_issue(states: Iterable[CheckState], now: datetime) -> KnownIssue | None:
    """The issue that explains the failures; `None` unless every one of them is explained."""
    failing = [state for state in states if state.judged.judgement is Judgement.FAILED]
    explained = [_issue_of(state, now) for state in failing]
    return explained[0] if explained and all(explained) else None


def _issue_of(state: CheckState, now: datetime) -> KnownIssue | None:
    record, document = state.judged.decided_by, state.attempt.document if state.attempt else None
    if record is None or document is None:
        return None
    on = now.astimezone(UTC).date()
    covering = (issue for issue in document.known_issues if issue.covers(record.cell, record.feature, record.check, on))
    return next(covering, None)


def count(records: Iterable[Record]) -> dict[Outcome, int]:
    """How many records have each outcome, in the order of badness; outcomes without any are left out."""
    found = [record.outcome for record in records]
    return {outcome: found.count(outcome) for outcome in Outcome if outcome in found}
