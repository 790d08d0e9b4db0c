"""Machines that are directories: what several processes may do to one of them at the same time."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.hypervisors import _machine_directory as files

Make = Callable[[str], Path]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    def made(name: str) -> Path:
        path = files.of_machine("driver", "host", name)
        files.claim(path, name, {"name": name})
        return path

    return made


def test_a_machine_that_is_destroyed_while_somebody_looks_hides_no_other(make: Make) -> None:
    gone, kept = make("a"), make("b")

    def read(path: Path) -> Any:
        if path == gone:
            files.remove(path)  # by another process, after it was listed
        return files.read_mark(path)

    assert [path for path, _ in files.every("driver", "host", read)] == [kept]


def test_a_directory_that_two_remove_at_once_is_removed(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make("a")
    (path / "snapshots").mkdir()
    removed = shutil.rmtree

    def twice(folder: Path, **how: Any) -> None:
        removed(folder, **how)  # by another process, a moment earlier
        removed(folder, **how)

    monkeypatch.setattr(files.shutil, "rmtree", twice)

    files.remove(path)
    files.remove(path)

    assert not path.exists()
