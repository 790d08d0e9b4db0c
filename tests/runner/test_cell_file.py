"""What the records say of a cell whose process was killed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from lab.contracts import Cell, Owner, Realness
from lab.errors import Blame
from lab.results import store
from lab.results.layout import RunLayout
from lab.results.record import Outcome, Record
from lab.runner import cell_file, resume
from lab.runner.work import CellWork

CELL = Cell("h", "g", "p")
RUN = "20260101-000000-0000"
CHECKS = (
    "conformance/boot/test_a.py::test_1",
    "conformance/boot/test_a.py::test_2",
    "conformance/boot/test_a.py::test_3",
)
KILLED = "the cell's process was killed from outside (SIGKILL)"


@pytest.fixture
def work(tmp_path: Path) -> CellWork:
    return CellWork(
        run=RUN,
        cell=CELL,
        checks=CHECKS,
        inventory=None,  # type: ignore[arg-type]  # nothing here looks at it
        layout=RunLayout(tmp_path / RUN).attempt(CELL, 1),
        owner=Owner(RUN, CELL.name, 1, 1),
        realness=Realness.REAL,
        use_warm=True,
        command="lab cell inventories/local h/g/p",
        known_issues=(),
    )


@pytest.fixture
def suites(tmp_path: Path) -> Path:
    folder = tmp_path / "suites"
    folder.mkdir()
    (folder / "features.yaml").write_text("features: []\ndrivers: {}\n")
    return folder


def record(work: CellWork, check: str, outcome: Outcome, reason: str = "", blame: Blame = Blame.NOBODY) -> Record:
    return Record(
        run=RUN,
        cell=CELL.name,
        feature="boot.core",
        check=check,
        attempt=1,
        outcome=outcome,
        blame=blame,
        reason=reason,
        realness=Realness.EMULATED,
        warm=True,
        started=datetime.now(UTC),
        seconds=1.0,
    )


def written(work: CellWork) -> list[tuple[str, Outcome, Blame, str]]:
    found = store.read_attempt(work.layout, RUN)
    assert not found.problems
    return [(each.check[-6:], each.outcome, each.blame, each.reason) for each in found.records]


def test_what_was_judged_stays_and_the_rest_is_the_labs_fault(work: CellWork, suites: Path) -> None:
    work.layout.root.mkdir(parents=True)
    store.RecordFile(work.layout.records).append(record(work, CHECKS[0], Outcome.PASSED))
    with work.layout.records.open("ab") as file:
        file.write(b'{"schema": 1, "torn')

    result = cell_file.of_killed(work, suites, KILLED, 3.0)

    assert written(work) == [
        ("test_1", Outcome.PASSED, Blame.NOBODY, ""),
        ("test_2", Outcome.BROKEN, Blame.LAB, KILLED),
        ("test_3", Outcome.BLOCKED, Blame.LAB, f"the cell was stopped by: {KILLED}"),
    ]
    assert (result.outcome, result.blame, result.reason) == (Outcome.BROKEN, Blame.LAB, KILLED)
    attempt = store.read_attempt(work.layout, RUN)
    assert attempt.document is not None
    assert attempt.document.realness is Realness.EMULATED  # what the connected host said, not what was planned
    assert resume.is_spoilt(attempt, CHECKS)


def test_a_cell_killed_before_its_first_record_has_one_for_every_check(work: CellWork, suites: Path) -> None:
    cell_file.of_killed(work, suites, KILLED, 3.0)

    assert [outcome for _, outcome, _, _ in written(work)] == [Outcome.BROKEN, Outcome.BLOCKED, Outcome.BLOCKED]


def test_a_cell_killed_after_its_last_record_is_broken_and_its_records_stay(work: CellWork, suites: Path) -> None:
    work.layout.root.mkdir(parents=True)
    for check in CHECKS:
        store.RecordFile(work.layout.records).append(record(work, check, Outcome.PASSED))

    result = cell_file.of_killed(work, suites, KILLED, 3.0)

    assert [outcome for _, outcome, _, _ in written(work)] == [Outcome.PASSED] * 3
    assert (result.outcome, result.reason) == (Outcome.BROKEN, KILLED)
    assert not resume.is_spoilt(store.read_attempt(work.layout, RUN), CHECKS), "every check was judged"


def test_a_failure_of_the_product_before_the_kill_stays_the_worst(work: CellWork, suites: Path) -> None:
    work.layout.root.mkdir(parents=True)
    store.RecordFile(work.layout.records).append(record(work, CHECKS[0], Outcome.FAILED, "no disk", Blame.PRODUCT))

    result = cell_file.of_killed(work, suites, KILLED, 3.0)

    assert (result.outcome, result.blame, result.reason) == (Outcome.FAILED, Blame.PRODUCT, "no disk")
    assert resume.is_spoilt(store.read_attempt(work.layout, RUN), CHECKS)


def test_a_killed_cell_leaves_no_private_key_and_no_draft(work: CellWork) -> None:
    work.layout.root.mkdir(parents=True)
    for name in ("seed-1.img", "seed-1.img.4711.part", ".cell.json.4711", "console.log"):
        (work.layout.root / name).write_text("x")

    resume.clear_after_kill(work.layout)

    assert [path.name for path in work.layout.root.iterdir()] == ["console.log"]
