"""The site: every page of it, written from runs and the catalogue into one folder, whole or not at all."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab.contracts import Realness
from lab.errors import ConfigurationError
from lab.results import statements
from lab.results.layout import RUN_ID
from lab.results.statements import Expected
from lab.results.store import Run
from lab.results.verdicts import Observed, Verdict, Word
from lab.site import evidence, rows, run_page, tables, words
from lab.site.engine import Pages, safe
from lab.site.names import evidence_path, feature_path, guest_path, root_of, slug
from lab.site.swap import replacing
from lab.site.view import (
    OTHER_AREA,
    CatalogueLike,
    CellView,
    FeatureLike,
    SiteView,
    Square,
    gather,
    shown_mark,
    summary,
)
from lab.site.words import EXPECTED, NO_DATA, OBSERVED, VERDICTS, Mark

MOST_CELLS_ON_INDEX = 400
MOST_COLUMNS = 12
MOST_REGRESSIONS = 25
MOST_ROWS_OF_A_FEATURE = 1000


def write(runs: Sequence[Path], out: Path, catalogue: CatalogueLike, *, now: datetime | None = None) -> Path:
    """Write the site from run directories into `out` and return its index page.

    Readers see the old site until the new one is complete. Raises `RunError` for what is no run,
    `ConfigurationError` for a folder that holds something else, `LabDiskFull`.
    """
    read = _open(runs)
    book = statements.beside(run.document.inventory for run in read)
    site = gather(read, catalogue, book, now or datetime.now(UTC))
    with replacing(out) as folder:
        pages = Pages(folder, site)
        shutil.copyfile(Path(__file__).parent / "assets" / "style.css", folder / "style.css")
        _index(pages)
        _guests(pages)
        _cells(pages)
        _features(pages)
        _legend(pages)
        run_page.write_all(pages)
        for cell in site.cells:
            for view in cell.attempts:
                evidence.write(pages, cell, view)
    return out / "index.html"


def _open(runs: Sequence[Path]) -> list[Run]:
    found: dict[str, Run] = {}
    for path in runs:
        run = Run.open(path)
        if not RUN_ID.fullmatch(run.id):
            raise ConfigurationError(f"{path}: run.json names itself {run.id!r}, which is no name of a run")
        found[run.id] = run
    return list(found.values())


def _index(pages: Pages) -> None:
    site = pages.site
    regressions = [
        (cell, verdict) for cell in site.cells for verdict in cell.verdicts.values() if verdict.word is Word.REGRESSION
    ]
    sections = _by_realness(site.cells)
    pages.page(
        "index.html",
        "index.html.j2",
        {
            "title": "What works where",
            "nav": "Matrix",
            "with_checks": _with_checks(site),
            "regressions": regressions[:MOST_REGRESSIONS],
            "more_regressions": max(0, len(regressions) - MOST_REGRESSIONS),
            "sections": sections,
            "by_cell": len(site.cells) <= MOST_CELLS_ON_INDEX,
            "areas": list(site.areas),
            "area_square": _area_square,
            "hosts": {realness: sorted({cell.cell.host for cell in cells}) for realness, cells in sections},
            "guests": {realness: _guests_by_host(cells) for realness, cells in sections},
        },
    )


def _by_realness(cells: Sequence[CellView]) -> list[tuple[Realness, list[CellView]]]:
    grouped = [(realness, [cell for cell in cells if cell.realness is realness]) for realness in Realness]
    return [(realness, found) for realness, found in grouped if found]


def _guests_by_host(cells: Sequence[CellView]) -> list[tuple[str, Any]]:
    by_pair: dict[tuple[str, str], list[Verdict]] = {}
    for cell in cells:
        by_pair.setdefault((cell.cell.guest, cell.cell.host), []).extend(cell.verdicts.values())
    hosts = sorted({host for _, host in by_pair})
    guests = sorted({guest for guest, _ in by_pair})
    anchor = cells[0].realness
    return [
        (
            guest,
            safe(
                "".join(
                    _square(summary(by_pair.get((guest, host), ())), f"{guest_path(guest)}#{anchor}") for host in hosts
                )
            ),
        )
        for guest in guests
    ]


def _square(of: Square, href: str) -> str:
    return tables.square(of.mark, href if of.detail else "", of.detail)


def _area_square(cell: CellView, area: str, root: str) -> Any:
    return safe(_square(cell.squares[area], f"{root}{cell.path}#{slug(area)}"))


def _with_checks(site: SiteView) -> int:
    return sum(feature.id in site.checks_of for feature in site.features)


def _guests(pages: Pages) -> None:
    by_guest: dict[str, list[CellView]] = {}
    for cell in pages.site.cells:
        by_guest.setdefault(cell.cell.guest, []).append(cell)
    order = [feature for features in pages.site.areas.values() for feature in features]
    for guest, cells in by_guest.items():
        sections = []
        for realness, found in _by_realness(cells):
            known = {feature for cell in found for feature in cell.verdicts}
            features = [feature for feature in order if feature in known]
            sections.append((realness, found, features, len(order) - len(features)))
        context = {
            "title": guest,
            "nav": "Matrix",
            "guest": guest,
            "areas": list(pages.site.areas),
            "sections": sections,
            "columns": MOST_COLUMNS,
            "verdict_square": _verdict_square,
            "area_square": _area_square,
        }
        pages.page(guest_path(guest), "guest.html.j2", context)


def _verdict_square(cell: CellView, feature: str) -> Any:
    verdict = cell.verdicts.get(feature)
    if verdict is None:
        return safe(tables.square(NO_DATA, "", ""))
    tags = [name for name, is_so in (("flaky", verdict.flaky), ("stale", verdict.stale)) if is_so]
    tags += ["known issue"] if verdict.known_issue else []
    return safe(tables.square(shown_mark(verdict), f"../{cell.path}#{slug(feature)}", ", ".join(tags)))


def _cells(pages: Pages) -> None:
    silent = _Silent(pages)
    for cell in pages.site.cells:
        by_area = [
            (area, [rows.feature_row(cell.verdicts[feature]) for feature in features if feature in cell.verdicts])
            for area, features in cell.areas.items()
        ]
        context = {
            "title": f"{cell.cell.name} ({cell.realness})",
            "nav": "Matrix",
            "cell": cell,
            "rows": safe(
                tables.areas(
                    [(area, features) for area, features in by_area if features], root_of(cell.path), pages.site.now
                )
            ),
            "facts": safe(tables.facts(_versions(cell))),
            "silent": silent.part(cell),
            "attempt_mark": evidence.attempt_mark,
        }
        pages.page(cell.path, "cell.html.j2", context)


def _versions(cell: CellView) -> evidence.Pairs:
    document = cell.document
    if document is None:
        return []
    host, guest = document.host, document.guest or {}
    found = {
        "Hypervisor": " ".join(word for word in (host.product, host.version, host.accelerator) if word) if host else "",
        "Processor model": host.cpu_model if host else "",
        "Guest": _fact(guest, "os", "name"),
        "Kernel": _fact(guest, "kernel", "release"),
        "Image": document.image.name if document.image else "",
        "Digest": document.image.digest if document.image else "",
    }
    return evidence.pairs(found)


def _fact(facts: Mapping[str, Any], group: str, key: str) -> object:
    found = facts.get(group)
    return found.get(key) if isinstance(found, dict) else None


class _Silent:
    """The list of features of which nothing is known; most cells share theirs with many others."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._parts: dict[tuple[str, frozenset[str]], Any] = {}

    def part(self, cell: CellView) -> Any:
        site = self._pages.site
        key = (root_of(cell.path), frozenset(cell.verdicts))
        if key not in self._parts:
            silent = [
                (feature, feature.id in site.checks_of) for feature in site.features if feature.id not in cell.verdicts
            ]
            text = self._pages.render(cell.path, "silent.html.j2", {"features": silent}) if silent else ""
            self._parts[key] = safe(text)
        return self._parts[key]


def _features(pages: Pages) -> None:
    site = pages.site
    kinds = [realness for realness, _ in _by_realness(site.cells)]
    by_id: dict[str, FeatureLike] = {name: _Unknown(name) for name in site.strangers}
    by_id |= {feature.id: feature for feature in site.features}
    areas = []
    for area, features in site.areas.items():
        areas.append(
            (
                area,
                [(by_id[name], len(site.checks_of.get(name, ())), _tallies(site, name, kinds)) for name in features],
            )
        )
    context = {
        "title": "Features",
        "nav": "Features",
        "areas": areas,
        "kinds": kinds,
        "with_checks": _with_checks(site),
    }
    pages.page("features.html", "features.html.j2", context)
    for feature in by_id.values():
        _feature(pages, feature)


class _Unknown:
    """A feature of which there are records and which the catalogue does not know any more."""

    def __init__(self, name: str) -> None:
        self.id = name
        self.area = OTHER_AREA
        self.meaning = "Records name this feature, and the catalogue does not know it."
        self.families: tuple[str, ...] = ()
        self.hypervisors: tuple[str, ...] = ()


def _tallies(site: SiteView, feature: str, kinds: Sequence[Realness]) -> list[tuple[Realness, list[tuple[Mark, int]]]]:
    found: dict[Realness, Counter[Observed]] = {}
    for cell, verdict in site.by_feature.get(feature, ()):
        found.setdefault(cell.realness, Counter())[verdict.observed] += 1
    return [
        (kind, [(OBSERVED[state], count) for state in Observed if (count := found.get(kind, Counter())[state])])
        for kind in kinds
    ]


def _feature(pages: Pages, feature: FeatureLike) -> None:
    site = pages.site
    known = site.by_feature.get(feature.id, ())
    sections = []
    for realness in Realness:
        of_kind = [(cell, verdict) for cell, verdict in known if cell.realness is realness]
        of_kind.sort(key=lambda pair: tuple(Word).index(pair[1].word))
        if of_kind:
            shown = [_feature_row(cell, verdict, site.now) for cell, verdict in of_kind[:MOST_ROWS_OF_A_FEATURE]]
            sections.append((realness, len(of_kind), safe("".join(shown)), len(of_kind) - len(shown)))
    context = {
        "title": feature.id,
        "nav": "Features",
        "feature": feature,
        "checks": site.checks_of.get(feature.id, ()),
        "sections": sections,
        "without": len(site.cells) - len(known),
    }
    pages.page(feature_path(feature.id), "feature.html.j2", context)


def _feature_row(cell: CellView, verdict: Verdict, now: datetime) -> str:
    decided = [state.judged.decided_by for state in verdict.checks if state.judged.decided_by]
    worst = max(decided, key=lambda record: record.outcome.badness, default=None)
    log = evidence_path(worst.run, worst.cell, worst.attempt) if worst else ""
    marks = (OBSERVED[verdict.observed], VERDICTS[verdict.word], EXPECTED[verdict.expected])
    return tables.cell_of_feature(verdict, (cell.path, log), marks, now)


def _legend(pages: Pages) -> None:
    outcomes = [*words.OUTCOMES.values(), words.NOT_RUN]
    groups = [
        ("Realness", "What stood behind a record. Never mixed in one table.", list(words.REALNESS.values())),
        (
            "Seen",
            "What was seen of a feature in a cell, over all its checks and attempts.",
            [*(words.OBSERVED[state] for state in Observed), NO_DATA],
        ),
        ("Stated", "What vendors state.", [words.EXPECTED[state] for state in Expected]),
        ("Verdict", "What was seen beside what is stated.", list(words.VERDICTS.values())),
        ("Outcome of a check", "Of one check in one cell, one attempt.", outcomes),
        ("Change", "From one run to the next.", list(words.CHANGES.values())),
    ]
    pages.page("legend.html", "legend.html.j2", {"title": "Legend", "nav": "Legend", "groups": groups})
