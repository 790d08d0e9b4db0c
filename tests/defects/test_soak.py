"""The soak: which rounds are missing, what is kept of each, and what the page says of them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from lab import catalogue as suites_catalogue
from tests.defects import soak, soak_page, trial
from tests.defects.findings import cause
from tests.defects.soak import Round, Soak

JEOS = "qemu/jeos/pc-bios"


def done(number: int = 1, *, cell: str = JEOS, scope: str = "smoke", **other: object) -> Round:
    it: dict[str, object] = {"cell": cell, "scope": scope, "number": number, "revision": "abc"}
    it |= {"outcomes": {"passed": 12}, "failures": {}, "known": {}, "seconds": 5.0}
    it |= {"at": "2026-01-01T00:00:00+00:00", "load": 1.0, **other}
    return Round(**it)  # type: ignore[arg-type]


def kept(place: Path, *rounds: Round) -> Path:
    file = place / "soak.jsonl"
    file.write_text("".join(json.dumps(asdict(it)) + "\n" for it in rounds))
    return file


def test_rounds_that_were_run_are_not_run_again(tmp_path: Path) -> None:
    file = kept(tmp_path, done(1), done(2))
    wanted = Soak("qemu/jeos/pc-*", "smoke", 4, tmp_path, file)

    assert wanted.missing() == [(JEOS, 3), (JEOS, 4)]


def test_rounds_of_other_checks_do_not_count(tmp_path: Path) -> None:
    wanted = Soak("qemu/jeos/pc-*", "smoke", 1, tmp_path, kept(tmp_path, done(1, scope="all")))

    assert wanted.missing() == [(JEOS, 1)]


def test_each_cell_has_its_turn_before_any_has_a_second(tmp_path: Path) -> None:
    wanted = Soak("qemu/jeos/q35-[un]*", "smoke", 2, tmp_path, tmp_path / "none")

    assert [number for _, number in wanted.missing()] == [1, 1, 2, 2]


def test_smoke_rounds_run_the_checks_of_that_level_only() -> None:
    known = suites_catalogue.load(trial.ROOT / "suites").checks_by_id

    (chosen,) = soak.cells(JEOS, "smoke").values()
    (every,) = soak.cells(JEOS, "all").values()

    assert {known[check].level for check in chosen} == {"smoke"}
    assert {check for check in every if known[check].level == "smoke"} == set(chosen)
    assert len(every) > len(chosen) > 0


def test_a_round_that_judged_nothing_or_left_something_out_is_not_clean() -> None:
    assert done().clean
    assert not done(outcomes={"not_applicable": 22}).clean
    assert not done(failures={"a::b": "failed"}).clean
    assert not done(outcomes={"passed": 11, "blocked": 1}).clean


def test_a_round_that_broke_is_kept_as_a_failure(tmp_path: Path) -> None:
    program = ("sh", "-c", "echo no such guest >&2; exit 3", "sh")
    wanted = Soak(JEOS, "smoke", 1, tmp_path, tmp_path / "soak.jsonl", program)

    (broken,) = wanted.run(jobs=1, seconds=60)

    assert broken.failures == {soak.WHOLE_ROUND: "ended with 3: no such guest"}
    assert soak.read(wanted.file) == [broken]
    assert wanted.missing() == []


def test_no_round_begins_after_the_time_that_was_given(tmp_path: Path) -> None:
    wanted = Soak("*", "smoke", 1, tmp_path, tmp_path / "soak.jsonl")

    assert list(wanted.run(jobs=1, seconds=0)) == []
    assert not wanted.file.exists()


def test_the_page_counts_rounds_and_checks_of_each_cell_and_names_what_failed() -> None:
    text = soak_page.page([done(1), done(2, outcomes={"passed": 11, "failed": 1}, failures={"a.py::test_x": "`odd`"})])

    assert f"| `{JEOS}` | 2 | 1 | 23 | 1 | 0 | 5 |" in text
    assert "| `uml/jeos/uml` | 0 | 0 | 0 | 0 | 0 |  |" in text
    assert f"- `{JEOS}`, smoke, round 2, revision abc, `test_x`: `'odd'` **Not explained yet.**" in text


def test_rounds_that_failed_alike_are_named_together() -> None:
    odd = {"a.py::test_x": "odd"}
    text = soak_page.page(
        [done(2, failures=odd), done(3), done(4, failures=odd), done(5, failures={"a.py::test_x": "even"})]
    )

    assert "round 2, 4, revision abc, `test_x`: `odd`" in text
    assert "round 5, revision abc, `test_x`: `even`" in text


def test_only_failures_that_were_looked_into_are_explained() -> None:
    reason = "rm: can't remove '/dev/shm/lab-witness-46cf1879': Directory not empty"

    assert cause("8a16c7d3760e", "any.py::test_y", reason).startswith("The check was at fault")
    assert cause("8a16c7d3760e", "any.py::test_y", "another") == ""
    assert cause("abc", "any.py::test_y", reason) == ""


def test_the_page_is_what_was_kept() -> None:
    assert soak_page.PAGE.read_text() == soak_page.page(soak.read())
