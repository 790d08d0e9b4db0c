"""Checks can fail: defects seeded into real guests are caught, for the right reason, and nothing else cries out.

Of each defect only the checks that caught it in the last sweep run, and the smoke checks; of defects that the same
checks catch, the cheapest. `python -m tests.defects try --checks all` tries all defects with all checks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.defects import on_xen, sweep
from tests.defects.catalogue import DEFECTS
from tests.defects.definition import Defect
from tests.defects.judging import Result

LONGEST_S = 120.0  # a trial that took longer in the sweep is left to the sweep
MOST = 40
JOBS = 3  # most of a trial is waiting

pytestmark = [pytest.mark.minutes, pytest.mark.timeout(1500)]


def chosen() -> tuple[Defect, ...]:
    """Cheap defects first that turn a check red that none before them did, then others while there is room."""
    results = sweep.read_results()
    able = [
        defect
        for defect in DEFECTS
        if defect.name in results
        and results[defect.name].word == "caught"
        and results[defect.name].seconds <= LONGEST_S
        and "debian" not in defect.cell
        # A guest on an emulated Xen may begin with a clock that is seconds late on a busy machine (findings.LIMITS).
        and defect.cell != on_xen.CELL
    ]
    able.sort(key=lambda defect: (results[defect.name].seconds, defect.name))
    red: set[str] = set()
    first: list[Defect] = []
    rest: list[Defect] = []
    for defect in able:
        new = set(results[defect.name].caught) - red
        (first if new else rest).append(defect)
        red |= new
    return tuple([*first, *rest][:MOST])


CHOSEN = chosen()
Trials = Mapping[str, Future[Result]]


@pytest.fixture(scope="module")
def trials(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trials]:
    """The trials of all defects whose tests were chosen, under way."""
    wanted = [item.callspec.params.get("defect") for item in request.session.items if hasattr(item, "callspec")]
    place = tmp_path_factory.mktemp("defects")
    pool = ThreadPoolExecutor(JOBS)
    yield {it.name: pool.submit(sweep.tried, it, place, "few") for it in CHOSEN if it in wanted}
    pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("defect", CHOSEN, ids=lambda defect: defect.name)
def test_a_seeded_defect_is_caught_and_nothing_else_cries_out(defect: Defect, trials: Trials) -> None:
    result = trials[defect.name].result()

    assert result.word == "caught", sweep.told(result)


def test_enough_defects_are_tried() -> None:
    assert len(CHOSEN) >= 40
