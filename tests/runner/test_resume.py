"""Resuming: finished cells stay, half-done attempts are done again, a living run is not disturbed."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lab import process
from lab.contracts import Cell
from lab.errors import LabBusy, RunError
from lab.results import store
from lab.results.documents import JournalEvent
from lab.results.layout import RunLayout
from lab.runner import resume

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


def test_the_newest_run_is_called_last(tmp_path: Path) -> None:
    for name in ("20260101-000000-aaaa", "20260102-000000-bbbb"):
        (tmp_path / "runs" / name).mkdir(parents=True)

    assert resume.find(tmp_path, "last").root.name == "20260102-000000-bbbb"


def test_an_unknown_run_is_an_error_that_says_where_to_look(tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        resume.find(tmp_path, "20260101-000000-cccc")

    assert str(caught.value) == f"there is no run '20260101-000000-cccc'\n  -> ls {tmp_path / 'runs'}"
