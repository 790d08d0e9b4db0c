"""What changed between two runs, in seven classes and both directions; never net counts.

The state of a check in a cell within one run is *passed*, *failed* (in any attempt: a retry hides nothing),
*unsupported* (the product says that it cannot), *unjudged* (not applicable, skipped, blocked, broken by the
lab, failed by the lab's or the suite's fault, planned and never run), or *absent* (neither planned nor recorded).

| from A to B                              | class           |
|------------------------------------------|-----------------|
| passed -> failed or unsupported          | `regressed`     |
| failed -> passed                         | `fixed`         |
| failed -> failed                         | `still_failing` |
| unsupported, unjudged, absent -> failed  | `new_failure`   |
| unsupported, unjudged -> passed          | `new_pass`      |
| absent -> present and not failed         | `appeared`      |
| present -> absent                        | `disappeared`   |

Everything else is no change that one can be sure of and is left out; so a fault of the lab in B is never a
regression, and one in A is never what a failure of B is compared with. A check is in one class at most.
A host whose realness differs between the runs is another host: nothing of it is compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from lab.contracts import Realness
from lab.results.judgement import Judgement, of_attempts
from lab.results.record import Record
from lab.results.store import Run


class Change(StrEnum):
    """The seven classes, in the order in which people want to read them."""

    REGRESSED = "regressed"
    NEW_FAILURE = "new_failure"
    STILL_FAILING = "still_failing"
    FIXED = "fixed"
    NEW_PASS = "new_pass"  # noqa: S105
    APPEARED = "appeared"
    DISAPPEARED = "disappeared"


@dataclass(frozen=True, order=True)
class Entry:
    """One check in one cell."""

    cell: str
    feature: str
    check: str


Diff = Mapping[Change, tuple[Entry, ...]]


class _Key(NamedTuple):
    entry: Entry
    realness: Realness


def diff(run_a: Run, run_b: Run) -> Diff:
    """What changed from `run_a` to `run_b`; every class is there, also an empty one."""
    before, after = _states(run_a), _states(run_b)
    planned_before, planned_after = _planned(run_a), _planned(run_b)
    found: dict[Change, list[Entry]] = {change: [] for change in Change}
    for key in sorted({*before, *after}):
        here = before.get(key) or _without_record(key, planned_before)
        there = after.get(key) or _without_record(key, planned_after)
        change = classify(here, there)
        if change is not None:
            found[change].append(key.entry)
    return {change: tuple(entries) for change, entries in found.items()}


def classify(before: Judgement | None, after: Judgement | None) -> Change | None:
    """The class of one change; `None` as a state is *absent*."""
    match before, after:
        case None, None:
            return None
        case _, None:
            return Change.DISAPPEARED
        case Judgement.PASSED, Judgement.FAILED | Judgement.UNSUPPORTED:
            return Change.REGRESSED
        case Judgement.FAILED, Judgement.FAILED:
            return Change.STILL_FAILING
        case _, Judgement.FAILED:
            return Change.NEW_FAILURE
        case None, _:
            return Change.APPEARED
        case Judgement.FAILED, Judgement.PASSED:
            return Change.FIXED
        case Judgement.UNSUPPORTED | Judgement.NOT_APPLICABLE | Judgement.UNJUDGED, Judgement.PASSED:
            return Change.NEW_PASS
        case _:
            return None


def as_json(found: Diff) -> dict[str, list[dict[str, str]]]:
    """The document of `lab diff --json`."""
    return {
        change.value: [
            {"cell": entry.cell, "feature": entry.feature, "check": entry.check} for entry in found.get(change, ())
        ]
        for change in Change
    }


def _states(run: Run) -> dict[_Key, Judgement]:
    records: dict[_Key, list[Record]] = {}
    for record in run.records():
        key = _Key(Entry(record.cell, record.feature, record.check), record.realness)
        records.setdefault(key, []).append(record)
    return {key: of_attempts(of_key).judgement for key, of_key in records.items()}


def _planned(run: Run) -> set[tuple[str, str, str]]:
    return {(cell.cell, check, cell.realness) for cell in run.planned() for check in cell.checks}


def _without_record(key: _Key, planned: set[tuple[str, str, str]]) -> Judgement | None:
    is_planned = (key.entry.cell, key.entry.check, key.realness.value) in planned
    return Judgement.UNJUDGED if is_planned else None
