"""A disk that fills up during a run: it ends with a clear message, nothing is torn, and it goes on with space again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lab import process, waiting
from lab.results.store import Run

pytestmark = [pytest.mark.minutes, pytest.mark.timeout(900)]

UML_CELL = ("--suite", "smoke", "--select", "uml/jeos/uml")
QEMU_CELL = ("--suite", "smoke", "--select", "qemu/jeos/pc-bios", "--cold")


class Disk:
    """A small file system of its own, that can be given more space. Needs root."""

    def __init__(self, path: Path, kib: int) -> None:
        self.path = path
        path.mkdir(parents=True)
        process.check(["mount", "-t", "tmpfs", "-o", f"size={kib}k,mode=700", "tmpfs", path], timeout_s=30)

    def grow(self, mib: int) -> None:
        process.check(["mount", "-o", f"remount,size={mib}m", self.path], timeout_s=30)

    def fill(self) -> None:
        """Take all the space that is left, to the last byte."""
        with (self.path / "filler").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))

    def free(self) -> None:
        (self.path / "filler").unlink()

    def remove(self) -> None:
        process.check(["umount", "--lazy", self.path], timeout_s=30)


@pytest.fixture
def disk(lab: Any) -> Iterator[Callable[[str, int], Disk]]:
    made: list[Disk] = []

    def make(name: str, kib: int) -> Disk:
        made.append(Disk(lab.place / name, kib))
        return made[-1]

    yield make
    for each in made:
        each.remove()


def is_whole(run: Path) -> bool:
    """Whether every file of a run can be read to its end: no line is torn, no document half."""
    for path in run.glob("**/*.json"):
        json.loads(path.read_text())
    return not Run.open(run).problems()


def count_records(lab: Any) -> int:
    files = lab.reports.glob("runs/2*/cells/*/*/*/attempt-*/records.jsonl")
    return sum(path.read_bytes().count(b"\n") for path in files)


def of_plan(lab: Any) -> list[str]:
    plan = json.loads((lab.runs()[0] / "plan.json").read_text())
    return sorted(check for cell in plan["cells"] for check in cell["checks"])


def test_a_disk_that_fills_up_while_checks_run(lab: Any, disk: Callable[[str, int], Disk]) -> None:
    reports = disk("reports", 16 << 10)
    started = lab.start(*lab.run_words(*UML_CELL))
    waiting.until(lambda: count_records(lab) >= 2, what="some records", timeout_s=300)
    reports.fill()
    out, _ = started.communicate(timeout=300)

    assert started.returncode == 3, out
    assert "no space left on this machine while writing" in out
    assert "Traceback" not in out
    assert "Logging error" not in out
    (run,) = lab.runs()
    assert is_whole(run)
    assert {record["outcome"] for record in lab.records(run)} <= {"passed", "not_applicable", "broken", "blocked"}
    assert lab.machine_files() == []

    reports.free()
    status, out = lab.run("--resume", "last")

    assert status == 0, out
    assert lab.runs() == [run]
    assert is_whole(run)
    last = {record["check"]: record["outcome"] for record in lab.records(run)}
    assert sorted(last) == of_plan(lab)
    assert set(last.values()) <= {"passed", "not_applicable"}


def test_reports_without_space_for_the_first_file(lab: Any, disk: Callable[[str, int], Disk]) -> None:
    disk("reports", 4)

    status, out = lab.run(*UML_CELL)

    assert status == 3, out
    assert "no space left on this machine while" in out
    assert "Traceback" not in out
    assert not list(lab.reports.glob("runs/*")), "a run that has no plan is none"


def test_machines_on_a_full_disk(lab: Any, disk: Callable[[str, int], Disk]) -> None:
    state = disk("state", 20 << 10)

    status, out = lab.run(*QEMU_CELL)

    assert status == 3, out
    (run,) = lab.runs()
    broken = [record for record in lab.records(run) if record["outcome"] == "broken"]
    assert [record["blame"] for record in broken] == ["lab"]
    assert "LabDiskFull" in broken[0]["reason"]
    assert "MiB are free" in broken[0]["reason"]
    assert is_whole(run)
    assert lab.machine_files() == []

    state.grow(1024)
    status, out = lab.run("--resume", "last")

    assert status == 0, out
    assert is_whole(run)
    second = [record for record in lab.records(run) if record["attempt"] == 2]
    assert sorted(record["check"] for record in second) == of_plan(lab)


def test_a_cache_without_space_for_a_saved_machine_costs_only_speed(lab: Any, disk: Callable[[str, int], Disk]) -> None:
    lab.cache = disk("cache", 24 << 10).path
    lab.fill_cache(("images",))
    own = lab.cache / "interop-lab"

    status, out = lab.run("--suite", "smoke", "--select", "qemu/jeos/pc-bios")

    assert status == 0, out
    assert not list((own / "warm").glob("*/*")), "no half-made copy, no draft"
    log = next(lab.runs()[0].glob("cells/*/*/*/attempt-1/cell.log")).read_text()
    assert "warm.not_saved" in log
    assert "MiB are free" in log
    (own / "images").unlink()
