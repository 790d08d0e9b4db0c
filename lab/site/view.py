"""What the pages show, gathered once from runs, verdicts and the catalogue; no markup in here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Protocol

from lab.contracts import Cell, Realness
from lab.results import verdicts
from lab.results.documents import CellDocument
from lab.results.statements import Statements
from lab.results.store import Attempt, Run
from lab.results.verdicts import Observed, Verdict, Word
from lab.site.words import NO_DATA, OBSERVED, VERDICTS, Mark, plural

OTHER_AREA = "Not in the catalogue"


class FeatureLike(Protocol):
    """A feature of the catalogue, as far as pages need it."""

    @property
    def id(self) -> str: ...
    @property
    def area(self) -> str: ...
    @property
    def meaning(self) -> str: ...
    @property
    def families(self) -> Sequence[str]: ...
    @property
    def hypervisors(self) -> Sequence[str]: ...


class CheckLike(Protocol):
    """A check of the catalogue, as far as pages need it."""

    @property
    def id(self) -> str: ...
    @property
    def feature(self) -> str: ...
    @property
    def level(self) -> str: ...


class CatalogueLike(Protocol):
    """The catalogue, as far as pages need it."""

    @property
    def features(self) -> Sequence[FeatureLike]: ...
    @property
    def checks(self) -> Sequence[CheckLike]: ...


@dataclass(frozen=True)
class Square:
    """What a matrix shows in one place."""

    mark: Mark
    detail: str


@dataclass(frozen=True)
class AttemptView:
    """One attempt at a cell in one run."""

    run: Run
    attempt: Attempt

    @property
    def document(self) -> CellDocument | None:
        return self.attempt.document


@dataclass(frozen=True)
class CellView:
    """A cell in one realness, over all the runs of the site."""

    cell: Cell
    realness: Realness
    verdicts: Mapping[str, Verdict]  # by feature; only features of which anything is known
    attempts: tuple[AttemptView, ...]  # newest run first, last attempt first
    areas: Mapping[str, tuple[str, ...]]  # area -> ids of its features

    @property
    def path(self) -> str:
        """Where its page lies below the site."""
        return f"cells/{self.realness}/{self.cell.name}.html"

    @property
    def document(self) -> CellDocument | None:
        """The newest circumstances that are known."""
        return next((view.document for view in self.attempts if view.document), None)

    @cached_property
    def newest(self) -> datetime | None:
        times = [verdict.observed_at for verdict in self.verdicts.values() if verdict.observed_at]
        return max(times, default=None)

    @cached_property
    def squares(self) -> Mapping[str, Square]:
        """For each area what is known of its features, worst first."""
        return {
            area: summary(self.verdicts[feature] for feature in features if feature in self.verdicts)
            for area, features in self.areas.items()
        }

    @cached_property
    def total(self) -> Square:
        return summary(self.verdicts.values())


@dataclass(frozen=True)
class SiteView:
    """Everything that the pages show."""

    now: datetime
    runs: tuple[Run, ...]  # newest first
    features: tuple[FeatureLike, ...]
    checks: tuple[CheckLike, ...]
    cells: tuple[CellView, ...]  # sorted by realness, guest, host, profile
    areas: Mapping[str, tuple[str, ...]]
    strangers: tuple[str, ...]  # features that records name and the catalogue does not

    def of_realness(self, realness: Realness) -> list[CellView]:
        return [cell for cell in self.cells if cell.realness is realness]

    @cached_property
    def by_feature(self) -> Mapping[str, Sequence[tuple[CellView, Verdict]]]:
        found: dict[str, list[tuple[CellView, Verdict]]] = {feature.id: [] for feature in self.features}
        for cell in self.cells:
            for feature, verdict in cell.verdicts.items():
                found.setdefault(feature, []).append((cell, verdict))
        return found

    @cached_property
    def checks_of(self) -> Mapping[str, Sequence[CheckLike]]:
        found: dict[str, list[CheckLike]] = {}
        for check in self.checks:
            found.setdefault(check.feature, []).append(check)
        return found

    @cached_property
    def levels(self) -> Mapping[str, str]:
        return {check.id: check.level for check in self.checks}


def gather(runs: Iterable[Run], catalogue: CatalogueLike, statements: Statements, now: datetime) -> SiteView:
    """Bring together what the pages show."""
    newest_first = tuple(sorted(runs, key=lambda run: run.document.started, reverse=True))
    features_of = {check.id: check.feature for check in catalogue.checks}
    # Without checks there is nothing that could tell which of the records still count, so all of them do.
    found = verdicts.compute(newest_first, now=now, statements=statements, features_of=features_of or None)
    by_cell: dict[tuple[str, Realness], dict[str, Verdict]] = {}
    for verdict in found:
        by_cell.setdefault((verdict.cell, verdict.realness), {})[verdict.feature] = verdict
    attempts = _attempts(newest_first)
    areas = _areas(catalogue, {verdict.feature for verdict in found})
    named = {record.feature for run in newest_first for record in run.records()}
    keys = sorted({*by_cell, *attempts, *_planned(newest_first)}, key=_order)
    cells = tuple(
        CellView(Cell.parse(name), realness, by_cell.get((name, realness), {}), tuple(attempts.get(key, ())), areas)
        for key in keys
        for name, realness in [key]
    )
    return SiteView(
        now=now,
        runs=newest_first,
        features=tuple(catalogue.features),
        checks=tuple(catalogue.checks),
        cells=cells,
        areas=areas,
        strangers=tuple(sorted(named - {feature.id for feature in catalogue.features})),
    )


def shown_mark(verdict: Verdict) -> Mark:
    """The one mark for a verdict where there is room for one: what was seen, unless the verdict says more."""
    if verdict.word in (Word.REGRESSION, Word.BROKEN_CLAIM):
        return VERDICTS[verdict.word]
    if verdict.observed is Observed.NOT_APPLICABLE and verdict.word is Word.DOCUMENTED_GAP:
        return VERDICTS[verdict.word]
    return OBSERVED[verdict.observed]


_WORST_FIRST = (
    VERDICTS[Word.REGRESSION],
    VERDICTS[Word.BROKEN_CLAIM],
    OBSERVED[Observed.BROKEN],
    OBSERVED[Observed.PARTIAL],
    OBSERVED[Observed.UNKNOWN],
    OBSERVED[Observed.WORKS],
    VERDICTS[Word.DOCUMENTED_GAP],
    OBSERVED[Observed.NOT_APPLICABLE],
)


def summary(of: Iterable[Verdict]) -> Square:
    """One square for several features: the worst of them, and how many of the judged ones work."""
    found = list(of)
    if not found:
        return Square(NO_DATA, "")
    shown = {shown_mark(verdict) for verdict in found}
    counts = Counter(verdict.observed for verdict in found)
    judged = counts[Observed.WORKS] + counts[Observed.PARTIAL] + counts[Observed.BROKEN]
    if not judged:
        return Square(_worst(shown), plural(len(found), "feature"))
    parts = [f"{counts[Observed.WORKS]} of {judged} work"]
    parts += [f"{counts[Observed.UNKNOWN]} unknown"] if counts[Observed.UNKNOWN] else []
    flaky = sum(verdict.flaky for verdict in found)
    parts += [f"{flaky} flaky"] if flaky else []
    return Square(_worst(shown), ", ".join(parts))


def _worst(marks: set[Mark]) -> Mark:
    return next(mark for mark in _WORST_FIRST if mark in marks)


def _attempts(runs: Sequence[Run]) -> dict[tuple[str, Realness], list[AttemptView]]:
    found: dict[tuple[str, Realness], list[AttemptView]] = {}
    for run in runs:
        for result in run.cells():
            for attempt in reversed(result.attempts):
                if attempt.realness is not None:
                    found.setdefault((result.cell.name, attempt.realness), []).append(AttemptView(run, attempt))
    return found


def _planned(runs: Sequence[Run]) -> set[tuple[str, Realness]]:
    known = {realness.value: realness for realness in Realness}
    return {
        (planned.cell, known[planned.realness])
        for run in runs
        for planned in run.planned()
        if planned.excluded is None and planned.checks and planned.realness in known
    }


def _areas(catalogue: CatalogueLike, seen: set[str]) -> dict[str, tuple[str, ...]]:
    areas: dict[str, list[str]] = {}
    for feature in catalogue.features:
        areas.setdefault(feature.area, []).append(feature.id)
    others = sorted(seen - {feature.id for feature in catalogue.features})
    if others:
        areas[OTHER_AREA] = others
    return {area: tuple(features) for area, features in areas.items()}


def _order(key: tuple[str, Realness]) -> tuple[int, str, str, str]:
    host, guest, profile = key[0].split("/")
    return tuple(Realness).index(key[1]), guest, host, profile
