"""The rehearsal that the server of cells does: a whole cell, that leaves nothing and disturbs nobody."""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path

import pytest

from lab.checking import prepared
from lab.results.documents import CellDocument
from lab.results.record import Outcome
from lab.runner.executors import rehearsal


def test_the_rehearsed_cell_is_a_whole_one_that_passes(tmp_path: Path) -> None:
    rehearsal._run(tmp_path)

    told = CellDocument.model_validate_json((tmp_path / "attempt-1/cell.json").read_bytes())
    assert told.outcome is Outcome.PASSED
    assert (tmp_path / "attempt-1/records.jsonl").read_text().count("\n") == 1


def test_nothing_of_it_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = set(sys.modules), logging.getLogger("lab").handlers[:], sys.stdout

    rehearsal.rehearse()

    assert list(tmp_path.iterdir()) == []
    assert prepared._ahead == []
    assert not [suites for suites in prepared._catalogues if suites.is_relative_to(tmp_path)]
    assert not [name for name in set(sys.modules) - before[0] if "rehearsal.test_nothing" in name]
    assert (logging.getLogger("lab").handlers, sys.stdout) == before[1:]


def test_a_rehearsal_that_fails_ends_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(folder: Path) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(rehearsal, "_run", broken)

    rehearsal.rehearse()
