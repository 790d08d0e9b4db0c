"""A log line is one line, whatever a guest put into its facts."""

from pathlib import Path

import pytest

from lab import log


def test_facts_follow_the_event_on_one_line(tmp_path: Path) -> None:
    handler = log.write_to(tmp_path / "a.log")
    try:
        log.get("lab.test").info("machine.started", machine="m1", seconds=1.23456, note="two words")
    finally:
        log.stop_writing(handler)

    assert (tmp_path / "a.log").read_text().endswith("machine.started machine=m1 seconds=1.235 note='two words'\n")


def test_a_hostile_value_cannot_forge_a_line_or_colour_the_terminal(tmp_path: Path) -> None:
    handler = log.write_to(tmp_path / "a.log")
    try:
        log.get("lab.test").warning("guest.said", text="x\n2026-01-01 INFO forged\x1b[31m")
    finally:
        log.stop_writing(handler)

    content = (tmp_path / "a.log").read_text()
    assert content.count("\n") == 1
    assert "\x1b" not in content


def test_a_handler_that_was_taken_off_gets_nothing_more(tmp_path: Path) -> None:
    handler = log.write_to(tmp_path / "a.log")
    log.stop_writing(handler)

    log.get("lab.test").error("late")

    assert (tmp_path / "a.log").read_text() == ""


def test_a_full_disk_loses_lines_and_disturbs_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    handler = log.write_to(Path("/dev/full"))

    log.get("lab.test").info("lost")
    log.stop_writing(handler)

    assert capsys.readouterr().err == ""
