"""Replacing a folder whole."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from lab.errors import ConfigurationError, LabDiskFull
from lab.site.swap import MARK, replacing


def write(folder: Path, text: str) -> None:
    with replacing(folder) as draft:
        (draft / "index.html").write_text(text)


def test_a_new_folder_appears_whole(tmp_path: Path) -> None:
    with replacing(tmp_path / "reports" / "site") as draft:
        (draft / "index.html").write_text("x")
        assert not (tmp_path / "reports" / "site").exists()

    assert (tmp_path / "reports" / "site" / "index.html").read_text() == "x"
    assert [path.name for path in (tmp_path / "reports").iterdir()] == ["site"]


def test_the_old_content_is_gone_after_the_exchange(tmp_path: Path) -> None:
    site = tmp_path / "site"
    write(site, "old")
    (site / "stale.html").write_text("x")

    write(site, "new")

    assert sorted(path.name for path in site.iterdir()) == [MARK, "index.html"]
    assert (site / "index.html").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def test_a_failed_write_leaves_the_old_site_and_nothing_else(tmp_path: Path) -> None:
    site = tmp_path / "site"
    write(site, "old")

    def fail_in_the_middle() -> None:
        with replacing(site) as draft:
            (draft / "index.html").write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_in_the_middle()

    assert (site / "index.html").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def _die_in_the_middle(site: Path) -> None:
    with replacing(site) as draft:
        (draft / "index.html").write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_write_leaves_the_old_site_and_the_next_one_clears_up(tmp_path: Path) -> None:
    site = tmp_path / "site"
    write(site, "old")
    writer = multiprocessing.get_context("fork").Process(target=_die_in_the_middle, args=(site,))

    writer.start()
    writer.join()

    assert writer.exitcode == -signal.SIGKILL
    assert (site / "index.html").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2
    write(site, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def test_two_first_writers_both_succeed_and_the_later_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, rename = tmp_path / "site", Path.rename

    def late(draft: Path, target: Path) -> Path:
        if not site.exists():  # now another run puts its own there
            earlier = multiprocessing.get_context("fork").Process(target=write, args=(site, "earlier"))
            with monkeypatch.context() as other:
                other.setattr(Path, "rename", rename)
                earlier.start()
            earlier.join()
            assert (site / "index.html").read_text() == "earlier"
        return rename(draft, target)

    monkeypatch.setattr(Path, "rename", late)

    write(site, "later")

    assert (site / "index.html").read_text() == "later"
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")

    with pytest.raises(ConfigurationError) as caught:
        write(tmp_path, "x")

    assert str(caught.value) == (
        f"{tmp_path} is not empty and not a site of ours; nothing was written\n"
        "  -> name a folder that does not exist yet"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()

    write(tmp_path / "site", "x")

    assert (tmp_path / "site" / "index.html").is_file()


def test_a_full_disk_is_the_labs_own_error_and_leaves_the_old_site(tmp_path: Path) -> None:
    site = tmp_path / "site"
    write(site, "old")

    with pytest.raises(LabDiskFull), replacing(site):
        raise OSError(errno.ENOSPC, "No space left on device")

    assert (site / "index.html").read_text() == "old"


def test_where_folders_cannot_be_exchanged_two_steps_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class WithoutExchange:
        """A C library of an old system."""

    monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: WithoutExchange())
    write(tmp_path / "site", "old")

    write(tmp_path / "site", "new")

    assert (tmp_path / "site" / "index.html").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["site"]
