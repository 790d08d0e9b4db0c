"""Resuming: finished cells stay, half-done attempts are done again, a living run is not disturbed."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lab import process
from lab.contracts import Cell, Realness
from lab.errors import Blame, LabBusy, RunError
from lab.results import store
from lab.results.documents import CellDocument, JournalEvent
from lab.results.layout import RunLayout
from lab.results.record import Outcome, Record
from lab.runner import resume
from lab.runner.plan import Plan, PlannedCell

A, B = Cell("h", "g", "a"), Cell("h", "g", "b")


def layout_with(tmp_path: Path, *events: dict[str, object]) -> RunLayout:
    layout = RunLayout(tmp_path / "20260101-000000-0000")
    layout.root.mkdir()
    journal = store.Journal(layout.journal)
    for event in events:
        journal.append(JournalEvent.model_validate({"time": datetime.now(UTC), **event}))
    return layout


def started(cell: Cell, attempt: int = 1) -> dict[str, object]:
    return {"event": "cell-started", "cell": cell.name, "attempt": attempt, "pid": 2**22 + 1, "pid_started": 1}


def finished(cell: Cell, attempt: int = 1) -> dict[str, object]:
    return {"event": "cell-finished", "cell": cell.name, "attempt": attempt}


def test_a_cell_that_finished_is_not_done_again(tmp_path: Path) -> None:
    layout = layout_with(tmp_path, started(A), finished(A), started(B))

    earlier = resume.read(layout)

    assert earlier.finished == {A: 1}
    assert earlier.half_done == {B: 1}


def test_a_second_attempt_that_was_cut_off_is_half_done_under_its_own_number(tmp_path: Path) -> None:
    layout = layout_with(tmp_path, started(A), finished(A), started(A, 2))

    earlier = resume.read(layout)

    assert (earlier.finished, earlier.half_done) == ({A: 1}, {A: 2})


def test_only_the_half_done_attempt_is_removed(tmp_path: Path) -> None:
    layout = layout_with(tmp_path, started(A), finished(A), started(B))
    for cell in (A, B):
        layout.attempt(cell, 1).root.mkdir(parents=True)

    resume.clear_half_done(layout, resume.read(layout))

    assert layout.attempt(A, 1).root.exists()
    assert not layout.attempt(B, 1).root.exists()


def test_a_run_whose_controller_lives_is_left_alone(tmp_path: Path) -> None:
    own = {"pid": os.getpid(), "pid_started": process.start_time(os.getpid())}
    layout = layout_with(tmp_path, {"event": "run-started", **own}, started(A))
    layout.attempt(A, 1).root.mkdir(parents=True)

    with pytest.raises(LabBusy, match=f"is still being run by process {os.getpid()}"):
        resume.clear_half_done(layout, resume.read(layout))

    assert layout.attempt(A, 1).root.exists()


def test_a_directory_without_a_journal_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="has no journal to resume from"):
        resume.read(RunLayout(tmp_path))


def test_the_journal_is_read_whole_when_cut_at_any_byte(tmp_path: Path) -> None:
    layout = layout_with(tmp_path, started(A), finished(A), started(B), finished(B))
    content = layout.journal.read_bytes()

    for end in range(len(content) + 1):
        layout.journal.write_bytes(content[:end])
        earlier = resume.read(layout)
        lines = content[:end].count(b"\n")
        assert len(earlier.finished) == lines // 2
        assert len(earlier.half_done) == lines % 2


# -- what is left to do -------------------------------------------------------------------------------------

CHECKS = ("conformance/boot/test_a.py::test_1", "conformance/boot/test_a.py::test_2")
PLAN = Plan(tuple(PlannedCell(cell, Realness.REAL, CHECKS, None) for cell in (A, B)), 1.0)


def write_attempt(
    layout: RunLayout, cell: Cell, number: int, *judged: tuple[Outcome, Blame], finished: bool = True
) -> None:
    """An attempt with a record for each pair, and its cell.json when it finished."""
    attempt = layout.attempt(cell, number)
    attempt.root.mkdir(parents=True)
    run = layout.root.name
    for check, (outcome, blame) in zip(CHECKS, judged, strict=False):
        store.RecordFile(attempt.records).append(
            Record(
                run=run,
                cell=cell.name,
                feature="boot.core",
                check=check,
                attempt=number,
                outcome=outcome,
                blame=blame,
                realness=Realness.REAL,
                warm=False,
                started=datetime.now(UTC),
                seconds=1.0,
            )
        )
    if finished:
        worst = max((outcome for outcome, _ in judged), key=lambda outcome: outcome.badness)
        document = CellDocument(run=run, cell=cell.name, attempt=number, realness=Realness.REAL, outcome=worst)
        store.write_document(attempt.cell_json, document)


def left(layout: RunLayout, *, attempts: int = 1) -> list[tuple[str, int]]:
    found = resume.to_do(layout, PLAN, resume.read(layout), attempts=attempts)
    return [(each.planned.cell.profile, each.attempt) for each in found]


PASSED = (Outcome.PASSED, Blame.NOBODY)


def test_a_cell_that_was_judged_is_not_done_again(tmp_path: Path) -> None:
    layout = layout_with(tmp_path, started(A), finished(A))
    write_attempt(layout, A, 1, PASSED, PASSED)

    assert left(layout) == [("b", 1)]


@pytest.mark.parametrize(
    "spoilt",
    [
        (Outcome.BROKEN, Blame.LAB),  # its process was killed, a disk was full
        (Outcome.BROKEN, Blame.HYPERVISOR),  # its machine ended by itself, or was ended
        (Outcome.BROKEN, Blame.CONFIGURATION),
        (Outcome.FAILED, Blame.LAB),
    ],
)
def test_a_cell_that_the_lab_spoilt_gets_one_attempt_more(tmp_path: Path, spoilt: tuple[Outcome, Blame]) -> None:
    layout = layout_with(tmp_path, started(A), finished(A), started(B), finished(B))
    write_attempt(layout, A, 1, PASSED, spoilt)
    write_attempt(layout, B, 1, PASSED, PASSED)

    assert left(layout) == [("a", 2)]


@pytest.mark.parametrize(
    "judged",
    [
        (Outcome.FAILED, Blame.PRODUCT),
        (Outcome.FAILED, Blame.HYPERVISOR),  # it refused what it should carry out
        (Outcome.BROKEN, Blame.SUITE),  # a check that is wrong stays wrong
        (Outcome.BLOCKED, Blame.GUEST),
    ],
)
def test_what_the_product_or_a_check_did_is_no_reason_to_do_it_again(
    tmp_path: Path, judged: tuple[Outcome, Blame]
) -> None:
    layout = layout_with(tmp_path, started(A), finished(A), started(B), finished(B))
    write_attempt(layout, A, 1, PASSED, judged)
    write_attempt(layout, B, 1, PASSED, PASSED)

    assert left(layout) == []


def test_an_attempt_without_all_its_records_is_spoilt(tmp_path: Path) -> None:
    layout = layout_with(tmp_path, started(A), finished(A), started(B), finished(B))
    write_attempt(layout, A, 1, PASSED)
    write_attempt(layout, B, 1, PASSED, PASSED, finished=False)

    assert left(layout) == [("a", 2), ("b", 2)]


def test_a_failed_cell_has_the_attempts_left_that_the_run_was_given(tmp_path: Path) -> None:
    layout = layout_with(tmp_path, started(A), finished(A), started(B), finished(B))
    write_attempt(layout, A, 1, PASSED, (Outcome.FAILED, Blame.PRODUCT))
    write_attempt(layout, B, 1, PASSED, PASSED)

    assert left(layout, attempts=2) == [("a", 2)]


def test_a_retry_that_was_cut_off_is_done_again_under_its_number(tmp_path: Path) -> None:
    layout = layout_with(tmp_path, started(A), finished(A), started(A, 2), started(B), finished(B))
    write_attempt(layout, A, 1, PASSED, (Outcome.FAILED, Blame.PRODUCT))
    write_attempt(layout, B, 1, PASSED, PASSED)

    assert left(layout, attempts=2) == [("a", 2)]


def test_an_attempt_of_which_the_journal_knows_nothing_is_removed(tmp_path: Path) -> None:
    layout = layout_with(tmp_path, started(A), finished(A))
    write_attempt(layout, A, 1, PASSED, PASSED)
    write_attempt(layout, B, 1, PASSED)

    resume.clear_half_done(layout, resume.read(layout))

    assert layout.attempt(A, 1).root.exists()
    assert not layout.attempt(B, 1).root.exists()
    assert left(layout) == [("b", 1)]


def test_drafts_of_killed_writers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    layout = layout_with(tmp_path, started(A), finished(A))
    write_attempt(layout, A, 1, PASSED, PASSED)
    (layout.root / ".run.json.4711").write_text("{")
    (layout.root / ".allure-results.4711").mkdir()
    (layout.root / ".note").write_text("of a person")
    (layout.attempt(A, 1).root / ".cell.json.4711").write_text("{")

    resume.clear_half_done(layout, resume.read(layout))

    assert sorted(path.name for path in layout.root.iterdir()) == [".note", "cells", "journal.jsonl"]
    assert not (layout.attempt(A, 1).root / ".cell.json.4711").exists()


def test_a_run_that_was_killed_before_its_first_line_begins_from_the_plan(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path / "20260101-000000-0000")
    layout.root.mkdir()
    store.write_json(layout.plan_json, {"schema": 1, "cells": [], "estimate_s": 0})

    assert left(layout) == [("a", 1), ("b", 1)]


def test_how_a_run_was_asked_for_is_remembered(tmp_path: Path) -> None:
    layout = layout_with(tmp_path, {"event": "run-started", "attempts": 3, "cold": True}, {"event": "run-started"})

    earlier = resume.read(layout)

    assert (earlier.attempts, earlier.cold) == (3, True)


def test_the_newest_run_is_called_last(tmp_path: Path) -> None:
    for name in ("20260101-000000-aaaa", "20260102-000000-bbbb"):
        (tmp_path / "runs" / name).mkdir(parents=True)

    assert resume.find(tmp_path, "last").root.name == "20260102-000000-bbbb"


def test_an_unknown_run_is_an_error_that_says_where_to_look(tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        resume.find(tmp_path, "20260101-000000-cccc")

    assert str(caught.value) == f"there is no run '20260101-000000-cccc'\n  -> ls {tmp_path / 'runs'}"
