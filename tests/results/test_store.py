"""Runs on disk: what is written is read, and damage costs only what was damaged."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lab.contracts import Realness
from lab.errors import LabDiskFull, RunError
from lab.results import lines, store
from lab.results.documents import JournalEvent
from lab.results.record import LONGEST_REASON, Measure, Record, bounded

CELL = "tcg/debian-12/q35"


@pytest.fixture
def run(make: ModuleType, tmp_path: Path) -> Path:
    """A run with one cell of three records."""
    maker = make.RunMaker(tmp_path)
    checks = {make.check(feature): make.passed() for feature in ("boot.core", "net.jumbo", "cpu.smp")}
    maker.planned(CELL, "real", [name for _, name in checks])
    maker.cell(CELL, checks)
    return maker.finish()


def records_file(run: Path) -> Path:
    return run / "cells" / CELL / "attempt-1" / "records.jsonl"


def test_a_run_is_read_as_it_was_written(run: Path) -> None:
    read = store.Run.open(run)

    assert [record.feature for record in read.records()] == ["boot.core", "net.jumbo", "cpu.smp"]
    assert [cell.cell.name for cell in read.cells()] == [CELL]
    assert read.cells()[0].last.realness is Realness.REAL
    assert [event.event for event in read.journal()] == ["run-started", "run-finished"]
    assert list(read.problems()) == []
    assert read.planned()[0].checks == tuple(record.check for record in read.records())


def test_the_keys_of_a_record_are_those_of_its_description(run: Path) -> None:
    line = records_file(run).read_text().splitlines()[0]

    assert list(json.loads(line)) == [
        "schema",
        "run",
        "cell",
        "feature",
        "check",
        "attempt",
        "outcome",
        "blame",
        "reason",
        "realness",
        "warm",
        "started",
        "seconds",
        "measured",
        "evidence",
    ]


@given(data=st.data())
def test_a_records_file_cut_at_any_byte_is_read_up_to_its_last_whole_line(
    make: ModuleType, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    maker = make.RunMaker(tmp_path_factory.mktemp("cut"))
    maker.cell(CELL, {make.check("boot.core", f"n{number}"): make.passed() for number in range(4)})
    run = maker.finish()
    whole = records_file(run).read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    records_file(run).write_bytes(whole[:cut])

    read = store.Run.open(run)

    assert len(read.records()) == whole[:cut].count(b"\n")
    assert not [problem for problem in read.problems() if problem.path == records_file(run)]


def test_a_journal_cut_within_its_last_line_loses_that_line_only(run: Path) -> None:
    journal = run / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-5])

    assert [event.event for event in store.Run.open(run).journal()] == ["run-started"]


def test_a_bad_line_in_the_middle_is_named_and_loses_nothing_else(run: Path) -> None:
    path = records_file(run)
    first, _, third = path.read_text().splitlines()
    path.write_text(f"{first}\n{{not json\n{third}\n")

    read = store.Run.open(run)

    assert [record.feature for record in read.records()] == ["boot.core", "cpu.smp"]
    (problem,) = read.problems()
    assert str(problem).startswith(f"{path}:2: Invalid JSON: ")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("outcome", "great", "outcome: Input should be "),
        ("surprise", 1, "surprise: Extra inputs are not permitted"),
        ("cell", "tcg/other/q35", f"the record says cell 'tcg/other/q35', its place says '{CELL}'; left out"),
        ("attempt", 2, "the record says attempt '2', its place says '1'; left out"),
        ("realness", "simulated", "the record says realness 'simulated', its place says 'real'; left out"),
        ("run", "20200101-000000-0000", "the record says run '20200101-000000-0000', its place says "),
    ],
)
def test_a_record_that_is_wrong_or_belongs_elsewhere_is_left_out(run: Path, key: str, value: object, said: str) -> None:
    path = records_file(run)
    lines = path.read_text().splitlines()
    lines[1] = json.dumps(json.loads(lines[1]) | {key: value})
    path.write_text("\n".join(lines) + "\n")

    read = store.Run.open(run)

    assert len(read.records()) == 2
    (problem,) = read.problems()
    assert problem.line == 2
    assert problem.what.startswith(said)


def test_bytes_that_are_no_text_are_a_problem_and_no_crash(run: Path) -> None:
    with records_file(run).open("ab") as file:
        file.write(b"\xff\xfe\x00" + b"[" * 5000 + b"\n")

    read = store.Run.open(run)

    assert len(read.records()) == 3
    assert [problem.line for problem in read.problems()] == [4]


def test_an_attempt_without_cell_json_keeps_its_records(run: Path) -> None:
    (run / "cells" / CELL / "attempt-1" / "cell.json").unlink()

    (cell,) = store.Run.open(run).cells()

    assert cell.last.document is None
    assert cell.last.realness is Realness.REAL
    assert len(cell.records) == 3


def test_a_broken_cell_json_is_a_problem_and_the_records_stay(run: Path) -> None:
    path = run / "cells" / CELL / "attempt-1" / "cell.json"
    path.write_text('{"schema": 1, "run": ')

    read = store.Run.open(run)

    assert len(read.records()) == 3
    assert [problem.path for problem in read.problems()] == [path]


def test_keys_that_a_later_version_adds_to_documents_are_kept(run: Path) -> None:
    path = run / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"weather": "rain"}))

    assert store.Run.open(run).document.model_extra == {"weather": "rain"}


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        store.Run.open(tmp_path)

    assert str(caught.value) == (
        f"{tmp_path} is not a run: it holds no run.json\n  -> a run is a folder below reports/runs"
    )


def test_a_lost_plan_is_a_problem_and_nothing_is_planned(run: Path) -> None:
    (run / "plan.json").write_text("[" * 100_000)

    read = store.Run.open(run)

    assert list(read.planned()) == []
    assert [str(problem) for problem in read.problems()] == [f"{run / 'plan.json'}: there is no readable plan"]


def test_a_planned_cell_with_a_name_that_leads_elsewhere_is_left_out(run: Path) -> None:
    plan = {"schema": 1, "cells": [{"cell": "../../x", "realness": "real", "checks": []}, "no object"]}
    (run / "plan.json").write_text(json.dumps(plan))

    assert list(store.Run.open(run).planned()) == []


def test_a_full_disk_while_appending_is_the_labs_own_error(make: ModuleType, tmp_path: Path) -> None:
    maker = make.RunMaker(tmp_path)
    record = maker.record(CELL, *make.check("boot.core"), make.passed())

    with pytest.raises(LabDiskFull):
        store.RecordFile(Path("/dev/full")).append(record)


def _append(path: Path, record: Record, count: int) -> None:
    for _ in range(count):
        store.RecordFile(path).append(record)


def test_processes_that_append_at_once_do_not_mix_their_lines(make: ModuleType, tmp_path: Path) -> None:
    maker = make.RunMaker(tmp_path)
    result = make.result("failed", "x" * 3000)
    record = maker.record(CELL, *make.check("boot.core"), result)
    path = tmp_path / "records.jsonl"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_append, args=(path, record, 50)) for _ in range(4)]

    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    assert set(path.read_text().splitlines()) == {record.line()}
    assert path.read_text().count("\n") == 200


@given(st.text(max_size=LONGEST_REASON + 200))
def test_a_reason_is_bounded_once_and_for_all(text: str) -> None:
    once = bounded(text)

    assert len(once) <= LONGEST_REASON
    assert bounded(once) == once
    once.encode()


def test_a_hostile_reason_makes_one_line_that_is_read_back(make: ModuleType, tmp_path: Path) -> None:
    maker = make.RunMaker(tmp_path)
    hostile = "a\nb\x00\x1b[2J\u2028\udc80" + "z" * 9000

    record = maker.record(CELL, *make.check("boot.core"), make.result("failed", hostile))

    assert "\n" not in record.line()
    assert Record.parse(record.line()) == record
    assert "\\udc80" in record.reason


def test_a_measured_number_that_json_cannot_hold_is_refused() -> None:
    with pytest.raises(ValidationError, match="finite number"):
        Measure(value=float("nan"), unit="s", better="lower")


def test_records_and_journal_cut_at_any_byte_are_read_up_to_their_last_whole_line(
    make: ModuleType, tmp_path: Path
) -> None:
    maker = make.RunMaker(tmp_path)
    for position in range(4):
        reason = "\x00\x1b[2J\u2028 \u00fc" * position
        record = maker.record(CELL, *make.check("boot.core", f"c{position}"), make.result("failed", reason))
        store.RecordFile(tmp_path / "records.jsonl").append(record)
        store.Journal(tmp_path / "journal.jsonl").append(
            JournalEvent.model_validate({"time": record.started, "event": "cell-finished", "reason": reason})
        )

    for name, parse in (("records.jsonl", Record.parse), ("journal.jsonl", JournalEvent.model_validate_json)):
        path = tmp_path / name
        whole = path.read_bytes()
        every = [parse(line) for line in whole.split(b"\n")[:-1]]
        assert len(every) == 4
        for end in range(len(whole) + 1):
            path.write_bytes(whole[:end])
            found = [parse(line.data) for line in lines.read(path)]
            assert found == every[: whole[:end].count(b"\n")], (name, end)


def test_a_line_appended_behind_any_cut_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    whole = b'{"a": 1}\n{"b": "\xc3\xbc"}\n{"c": 3}\n'

    for end in range(len(whole) + 1):
        path.write_bytes(whole[:end])
        lines.append(path, "next")
        kept = whole[:end].count(b"\n")
        assert path.read_bytes() == b"".join(whole.splitlines(keepends=True)[:kept]) + b"next\n"
