"""Measurements and evidence: what a check may hand in, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.checking import handed


def test_measurements_refuse_what_no_reader_could_use() -> None:
    measured = handed.Measurements()
    measured.add("a", 1, "s")
    with pytest.raises(ValueError, match="a was measured already"):
        measured.add("a", 2, "s")
    with pytest.raises(ValueError, match="'A b' is not a name for a measurement"):
        measured.add("A b", 2, "s")
    with pytest.raises(ValueError, match="b is nan, which is not a number"):
        measured.add("b", float("nan"), "s")


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("a.txt", "a.txt"),
        ("../../etc/passwd", "etc-passwd"),
        ("", "evidence"),
        ("\x00/\x1b[m", "m"),
        ("..", "evidence"),
    ],
)
def test_evidence_never_leaves_its_folder(tmp_path: Path, name: str, kept: str) -> None:
    path = handed.Evidence(tmp_path / "e").attach(name, "text")
    assert path == tmp_path / "e" / kept
    assert path.read_text() == "text"


def test_evidence_is_bounded(tmp_path: Path) -> None:
    evidence = handed.Evidence(tmp_path)
    path = evidence.attach("big", b"x" * (handed.LARGEST_EVIDENCE + 1))
    assert path.stat().st_size == handed.LARGEST_EVIDENCE
    assert path.read_bytes().endswith(b"(the rest was cut off)\n")
    for _ in range(handed.MOST_EVIDENCE - 1):
        evidence.attach("a.txt", "x")
    assert len(set(evidence.files())) == handed.MOST_EVIDENCE
    with pytest.raises(ValueError, match="at most 16 files"):
        evidence.attach("a.txt", "x")
