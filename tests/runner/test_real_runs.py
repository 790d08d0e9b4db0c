"""The whole program on real guests: warm and cold, interrupted, killed, resumed, two at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Protocol

import pytest

from lab import waiting

pytestmark = [pytest.mark.minutes, pytest.mark.timeout(1200)]

QEMU_CELL = ("--suite", "smoke", "--select", "qemu/jeos/pc-bios")


class Lab(Protocol):
    """What tests/runner/conftest.py offers."""

    place: Path
    reports: Path

    def start(self, *words: str) -> subprocess.Popen[str]: ...
    def run_words(self, *more: str) -> tuple[str, ...]: ...
    def run(self, *more: str) -> tuple[int, str]: ...
    def runs(self) -> list[Path]: ...
    def records(self, run: Path) -> list[dict[str, Any]]: ...
    def cells(self, run: Path) -> list[dict[str, Any]]: ...
    def journal(self, run: Path) -> list[dict[str, Any]]: ...
    def machine_files(self) -> list[Path]: ...
    def processes(self) -> list[str]: ...


def read_until(stream: IO[str] | None, words: str) -> str:
    """The first line that holds `words`."""
    assert stream is not None
    said: list[str] = []
    for line in stream:
        said.append(line)
        if words in line:
            return line
    raise AssertionError(f"{words!r} was never said, but: {''.join(said)}")


def nothing_left(lab: Lab) -> None:
    waiting.until(lambda: not lab.processes(), what=f"no process to be left: {lab.processes()}", timeout_s=180.0)
    assert lab.machine_files() == []


@pytest.fixture(scope="module")
def two_runs(shared_lab: Lab) -> Iterator[tuple[Lab, tuple[int, str], tuple[int, str]]]:
    """A run of one QEMU and one User-Mode Linux cell, twice."""
    words = ("--suite", "smoke", "--select", "qemu/jeos/pc-bios", "--select", "uml/jeos/uml")
    first = shared_lab.run(*words)
    second = shared_lab.run(*words)
    return shared_lab, first, second


def test_a_run_on_two_hypervisors_is_as_expected(two_runs: tuple[Lab, tuple[int, str], tuple[int, str]]) -> None:
    _, (status, out), _ = two_runs

    assert status == 0, out


def test_the_last_line_is_the_path_of_the_site(two_runs: tuple[Lab, tuple[int, str], tuple[int, str]]) -> None:
    lab, (_, out), _ = two_runs

    assert out.splitlines()[-1] == str(lab.reports / "site" / "index.html")
    assert (lab.reports / "site" / "index.html").is_file()


def test_every_planned_check_has_a_record_with_its_realness(
    two_runs: tuple[Lab, tuple[int, str], tuple[int, str]],
) -> None:
    lab, *_ = two_runs
    run = lab.runs()[0]

    plan = json.loads((run / "plan.json").read_text())
    planned = {(cell["cell"], check) for cell in plan["cells"] for check in cell["checks"]}
    records = lab.records(run)
    assert {(record["cell"], record["check"]) for record in records} == planned
    assert {record["realness"] for record in records} == {"real"}
    assert sum(record["outcome"] == "passed" for record in records) > len(records) / 3


def test_the_second_run_restores_what_the_first_has_saved(
    two_runs: tuple[Lab, tuple[int, str], tuple[int, str]],
) -> None:
    lab, *_ = two_runs

    cells = {cell["cell"]: cell for cell in lab.cells(lab.runs()[1])}
    assert cells["qemu/jeos/pc-bios"]["warm"][0] is True
    assert cells["uml/jeos/uml"]["warm"] == [False]


def test_every_clone_is_somebody_of_its_own(two_runs: tuple[Lab, tuple[int, str], tuple[int, str]]) -> None:
    lab, *_ = two_runs

    guests = [cell["guest"] for run in lab.runs()[:2] for cell in lab.cells(run)]
    assert len({guest["machine_id"] for guest in guests}) == len(guests)
    assert len({guest["hostname"] for guest in guests}) == len(guests)


def test_two_equal_runs_have_no_regression(two_runs: tuple[Lab, tuple[int, str], tuple[int, str]]) -> None:
    lab, *_ = two_runs
    a, b = lab.runs()[:2]

    compared = lab.start("diff", str(a), str(b), "--json")
    out, _ = compared.communicate(timeout=300)

    assert compared.returncode == 0, out
    assert json.loads(out)["regressed"] == []


def test_a_run_leaves_no_process_and_no_machine(two_runs: tuple[Lab, tuple[int, str], tuple[int, str]]) -> None:
    lab, *_ = two_runs

    nothing_left(lab)


def test_ctrl_c_undoes_everything_and_the_run_can_be_resumed(lab: Lab) -> None:
    started = lab.start(*lab.run_words(*QEMU_CELL, "--cold"))
    read_until(started.stdout, ": boot")
    started.send_signal(signal.SIGINT)
    out, _ = started.communicate(timeout=300)

    assert started.returncode == 130, out
    nothing_left(lab)
    run = lab.runs()[0]
    assert lab.journal(run)[-1]["event"] == "interrupted"

    status, out = lab.run("--resume", "last")

    assert status == 0, out
    assert lab.runs() == [run]
    plan = json.loads((run / "plan.json").read_text())
    assert sorted(record["check"] for record in lab.records(run)) == sorted(plan["cells"][0]["checks"])


def test_a_killed_controller_takes_its_cells_with_it_and_the_run_can_be_resumed(lab: Lab) -> None:
    started = lab.start(*lab.run_words(*QEMU_CELL, "--cold"))
    read_until(started.stdout, ": boot")
    started.kill()
    started.wait()

    status, out = lab.run("--resume", "last")

    assert status == 0, out
    nothing_left(lab)
    records = lab.records(lab.runs()[0])
    assert len({record["check"] for record in records}) == len(records)


def test_a_qemu_that_is_killed_is_the_labs_fault_and_blocks_the_rest(lab: Lab) -> None:
    started = lab.start(*lab.run_words(*QEMU_CELL, "--cold"))
    read_until(started.stdout, ": boot")
    os.kill(qemu_of(lab), signal.SIGKILL)
    out, _ = started.communicate(timeout=600)

    assert started.returncode == 3, out
    records = lab.records(lab.runs()[0])
    judged = {record["outcome"] for record in records}
    assert judged <= {"broken", "blocked", "not_applicable", "unsupported"}
    assert {record["blame"] for record in records if record["outcome"] == "broken"} <= {"lab", "hypervisor"}
    nothing_left(lab)


def test_a_qemu_that_is_killed_gets_a_second_attempt_where_one_was_allowed(lab: Lab) -> None:
    started = lab.start(*lab.run_words(*QEMU_CELL, "--attempts", "2"))
    read_until(started.stdout, ": boot")
    os.kill(qemu_of(lab), signal.SIGKILL)
    out, _ = started.communicate(timeout=900)

    assert started.returncode == 0, out
    run = lab.runs()[0]
    records = lab.records(run)
    first, second = ([record for record in records if record["attempt"] == number] for number in (1, 2))
    decisive = [record for record in first if record["outcome"] == "broken"]
    assert [record["blame"] for record in decisive] == ["hypervisor"]
    assert decisive[0]["reason"].startswith("MachineVanished: ")
    assert {record["outcome"] for record in first} <= {"broken", "blocked", "not_applicable", "unsupported"}
    assert sorted(record["check"] for record in second) == sorted(plan_of(run))
    assert {record["outcome"] for record in second} <= {"passed", "not_applicable", "unsupported"}
    nothing_left(lab)


def test_a_killed_cell_is_told_and_cleaned_up_by_the_controller(lab: Lab) -> None:
    started = lab.start(*lab.run_words(*QEMU_CELL, "--cold"))
    read_until(started.stdout, ": boot")
    run = lab.runs()[0]
    pid = next(event["pid"] for event in lab.journal(run) if event["event"] == "cell-started")
    os.kill(pid, signal.SIGKILL)
    out, _ = started.communicate(timeout=300)

    assert started.returncode == 3, out
    assert "the cell's process was killed from outside (SIGKILL)" in out
    nothing_left(lab)
    records = lab.records(run)
    assert [record["outcome"] for record in records] == ["broken", *["blocked"] * (len(records) - 1)]
    assert {record["blame"] for record in records} == {"lab"}
    assert [record["check"] for record in records] == plan_of(run)


def test_two_runs_at_once_do_not_disturb_each_other(lab: Lab) -> None:
    both = [lab.start(*lab.run_words(*QEMU_CELL)) for _ in range(2)]
    answers = [(started.communicate(timeout=600)[0], started.returncode) for started in both]

    assert [status for _, status in answers] == [0, 0], answers
    assert len(lab.runs()) == 2
    nothing_left(lab)


def plan_of(run: Path) -> list[str]:
    """The checks of the first cell."""
    checks: list[str] = json.loads((run / "plan.json").read_text())["cells"][0]["checks"]
    return checks


def qemu_of(lab: Lab) -> int:
    def pid() -> int | None:
        return next((int(line.split()[0]) for line in lab.processes() if "qemu-system" in line.split()[1]), None)

    return waiting.until(pid, what="QEMU to run", timeout_s=180.0)
