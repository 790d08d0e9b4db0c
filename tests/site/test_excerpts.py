"""Head and tail of logs that may be endless."""

from __future__ import annotations

from pathlib import Path

from lab.site import excerpts


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "console.log"
    path.write_bytes(data)
    return path


def test_a_short_log_is_shown_whole(tmp_path: Path) -> None:
    found = excerpts.read(written(tmp_path, b"one\r\n\x1b[1mtwo\x1b[0m\n"))

    assert found == excerpts.Excerpt("one\ntwo", "", "", 17)


def test_a_log_that_is_not_there_is_nothing(tmp_path: Path) -> None:
    assert excerpts.read(tmp_path / "none") is None


def test_a_log_of_many_lines_is_shown_by_its_ends(tmp_path: Path) -> None:
    found = excerpts.read(written(tmp_path, b"".join(b"%d\n" % number for number in range(2000))))

    assert found is not None
    assert found.head.splitlines()[0] == "0"
    assert len(found.head.splitlines()) == excerpts.HEAD_LINES
    assert found.tail.splitlines()[-1] == "1999"
    assert found.left_out == "The middle is left out."


def test_an_endless_log_is_read_at_its_ends_only(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    with path.open("wb") as file:
        file.write(b"first\n")
        file.seek(3 << 30)  # sparse
        file.write(b"\nlast\n")

    found = excerpts.read(path)

    assert found is not None
    assert found.size == (3 << 30) + 6
    assert found.head.startswith("first\n")
    assert found.tail == "last"
    assert len(found.head) + len(found.tail) < 200_000


def test_a_log_without_a_newline_is_bounded(tmp_path: Path) -> None:
    found = excerpts.read(written(tmp_path, b"x" * 5_000_000))

    assert found is not None
    assert len(found.head) + len(found.tail) < 2000


def test_a_copy_is_whole_up_to_its_limit(tmp_path: Path) -> None:
    source = written(tmp_path, b"\x1b[0mraw\xff")

    excerpts.copy(source, tmp_path / "copy.txt")

    assert (tmp_path / "copy.txt").read_text() == "raw\ufffd"


def test_a_copy_of_an_endless_log_has_its_two_ends(tmp_path: Path) -> None:
    source = tmp_path / "console.log"
    with source.open("wb") as file:
        file.write(b"first")
        file.seek(64 << 20)
        file.write(b"last")

    excerpts.copy(source, tmp_path / "copy.txt")

    copied = (tmp_path / "copy.txt").read_bytes()
    assert copied.startswith(b"first")
    assert copied.endswith(b"last")
    assert b"bytes left out" in copied
    assert len(copied) < excerpts.LARGEST_COPY + 100
