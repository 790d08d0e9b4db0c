"""Where things lie in a run's directory."""

from __future__ import annotations

import errno
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from lab import process
from lab.contracts import Cell
from lab.errors import LabDiskFull
from lab.results import layout
from lab.results.layout import RUN_ID, RunLayout

CELL = Cell("tcg", "debian-12", "q35")


def test_a_run_id_is_the_time_in_utc_and_a_tail() -> None:
    run = layout.new_run_id(datetime(2026, 11, 22, 1, 2, 3, tzinfo=timezone(timedelta(hours=2))))

    assert run.startswith("20261121-230203-")
    assert RUN_ID.fullmatch(run)


def test_runs_are_listed_oldest_first_and_other_folders_left_out(tmp_path: Path) -> None:
    for name in ("20261122-000000-ffff", "20261121-000000-0000", "notes", ".site.draft"):
        (tmp_path / "runs" / name).mkdir(parents=True)

    found = layout.run_directories(tmp_path)

    assert [path.name for path in found] == ["20261121-000000-0000", "20261122-000000-ffff"]


def test_a_folder_without_runs_has_none(tmp_path: Path) -> None:
    assert list(layout.run_directories(tmp_path)) == []


def test_attempts_are_found_by_cell_and_number(tmp_path: Path) -> None:
    run = RunLayout(tmp_path)
    for number in (10, 2, 1):
        run.attempt(CELL, number).root.mkdir(parents=True)
    (tmp_path / "cells/tcg/debian-12/q35/attempt-x").mkdir()
    (tmp_path / "cells/tcg/debian-12/q35/attempt-0").mkdir()

    assert [(found.cell, found.number) for found in run.attempts()] == [(CELL, 1), (CELL, 2), (CELL, 10)]


def test_a_cell_cannot_lead_out_of_the_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'\.\./\.\./x' is not a name of a cell"):
        RunLayout(tmp_path).attempt(Cell("..", "..", "x"), 1)


@pytest.mark.parametrize("bad", ["/etc/passwd", "../secret", "a/../../secret", "", ".", "a\0b", "nothing", "folder"])
def test_an_evidence_path_that_leads_elsewhere_is_nothing(tmp_path: Path, bad: str) -> None:
    root = tmp_path / "run"
    (root / "folder").mkdir(parents=True)
    (tmp_path / "secret").write_text("x")

    assert layout.inside(root, bad) is None


def test_a_link_out_of_the_run_is_nothing(tmp_path: Path) -> None:
    root = tmp_path / "run"
    root.mkdir()
    (root / "passwd").symlink_to("/etc/passwd")

    assert layout.inside(root, "passwd") is None


def test_an_evidence_path_within_the_run_is_found(tmp_path: Path) -> None:
    (tmp_path / "evidence").mkdir()
    (tmp_path / "evidence" / "a.txt").write_text("x")

    assert layout.inside(tmp_path, "evidence/a.txt") == tmp_path / "evidence" / "a.txt"


def test_a_run_appears_whole(tmp_path: Path) -> None:
    root = tmp_path / "runs" / "20261121-000000-0000"

    with layout.appearing(root) as draft:
        draft.plan_json.write_text("{}")
        assert list(layout.run_directories(tmp_path)) == []

    assert [path.name for path in root.parent.iterdir()] == [root.name]
    assert (root / "plan.json").read_text() == "{}"


def test_a_run_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    root = tmp_path / "runs" / "20261121-000000-0000"

    def fills_the_disk() -> None:
        with layout.appearing(root) as draft:
            draft.plan_json.write_text("{}")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(LabDiskFull, match=f"^no space left on this machine while making {root}"):
        fills_the_disk()

    assert list(root.parent.iterdir()) == []


def test_the_draft_of_a_dead_process_goes_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    living = f".20261121-000000-0001.{os.getpid()}.{process.start_time(os.getpid())}"
    for name in (".20261121-000000-0000.4194305.1", living):
        (runs / name).mkdir(parents=True)

    with layout.appearing(runs / "20261121-000000-0002"):
        pass

    assert sorted(path.name for path in runs.iterdir()) == [living, "20261121-000000-0002"]
