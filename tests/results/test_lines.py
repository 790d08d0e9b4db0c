"""Append-only files of lines."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import LabDiskFull, RunError
from lab.results import lines


def texts(path: Path) -> list[str]:
    return [line.data.decode() for line in lines.read(path)]


def test_appended_lines_are_read_in_order(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"

    lines.append(path, "one")
    lines.append(path, "zwei ü")

    assert texts(path) == ["one", "zwei ü"]
    assert [line.number for line in lines.read(path)] == [1, 2]


def test_a_file_that_is_not_there_has_no_lines(tmp_path: Path) -> None:
    assert lines.read(tmp_path / "none") == []


def test_two_lines_at_once_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one line at a time"):
        lines.append(tmp_path / "a", "one\ntwo")


@given(
    kept=st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=30), max_size=6),
    data=st.data(),
)
def test_a_file_cut_at_any_byte_is_read_up_to_its_last_whole_line(
    tmp_path_factory: pytest.TempPathFactory, kept: list[str], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("cut") / "a.jsonl"
    for text in kept:
        lines.append(path, text)
    whole = path.read_bytes() if kept else b""
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])

    found = texts(path)

    assert found == kept[: whole[:cut].count(b"\n")]
    lines.append(path, "next")
    assert texts(path) == [*found, "next"]


def test_a_long_torn_line_is_cut_off_by_the_next_writer(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"one\n" + b"x" * 200_000)

    lines.append(path, "two")

    assert texts(path) == ["one", "two"]


def test_a_full_disk_is_the_labs_own_error() -> None:
    with pytest.raises(LabDiskFull, match=r"^no space left on this machine while writing /dev/full"):
        lines.append(Path("/dev/full"), "one")


def test_a_disk_that_fills_up_within_a_line_leaves_the_lines_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jsonl"
    lines.append(path, "one")
    real = os.write
    calls = []

    def write_three_bytes_then_nothing(file: int, data: bytes) -> int:
        calls.append(data)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, data[:3])

    monkeypatch.setattr(os, "write", write_three_bytes_then_nothing)
    with pytest.raises(LabDiskFull):
        lines.append(path, "two and more")
    monkeypatch.undo()

    assert path.read_bytes() == b"one\n"


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=f"^{tmp_path} cannot be written: Is a directory$"):
        lines.append(tmp_path, "one")


def test_replacing_leaves_no_draft_and_the_new_text(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text("old")

    lines.replace(path, "new")

    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_replacing_on_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.json"
    path.write_text("old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LabDiskFull):
        lines.replace(path, "new")

    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
