"""Allure results of a run."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from types import ModuleType

import pytest

from lab.errors import LabDiskFull
from lab.results import allure
from lab.results.store import Run


@pytest.fixture
def run(make: ModuleType, tmp_path: Path) -> Run:
    return Run.open(make.small_runs(tmp_path)[1])


def items(folder: Path, kind: str) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob(f"*-{kind}.json"))]


def label(result: dict, name: str) -> str:
    return next(each["value"] for each in result["labels"] if each["name"] == name)


def test_every_attempt_is_a_result_with_its_status(run: Run) -> None:
    results = items(allure.write(run), "result")

    statuses = {(label(each, "feature"), each["status"]) for each in results if label(each, "host") == "tcg"}
    assert len(results) == len(run.records())
    assert statuses == {
        ("boot.core", "passed"),
        ("boot.reboot", "passed"),
        ("storage.pv_block", "passed"),
        ("net.jumbo", "failed"),
        ("net.offload_tso_csum", "failed"),
        ("memory.balloon", "broken"),
        ("storage.hotplug", "skipped"),
        ("time.clocksource", "skipped"),
        ("cpu.smp", "skipped"),
        ("device.vgpu", "skipped"),
    }


def test_realness_is_the_outermost_suite_and_part_of_the_history(make: ModuleType, tmp_path: Path, run: Run) -> None:
    results = items(allure.write(run), "result")

    suites = {(label(each, "parentSuite"), label(each, "host")) for each in results}
    assert suites == {("real", "uml"), ("emulated", "tcg"), ("simulated", "simulated")}
    assert all(label(each, "realness") == label(each, "parentSuite") for each in results)


def test_attempts_share_a_history_and_flaky_ones_are_marked(run: Run) -> None:
    results = [each for each in items(allure.write(run), "result") if label(each, "feature") == "net.pv_nic"]

    assert len({each["historyId"] for each in results}) == 1
    assert [each["statusDetails"]["flaky"] for each in results] == [True, True]


def test_containers_hold_the_results_and_the_console(run: Run) -> None:
    folder = allure.write(run)
    ids = {each["uuid"] for each in items(folder, "result")}

    containers = items(folder, "container")

    assert {child for each in containers for child in each["children"]} == ids
    sources = [
        each["source"] for one in containers for before in one["befores"] for each in before.get("attachments", [])
    ]
    assert sources
    assert all((folder / source).is_file() for source in sources)
    console = next(text for source in sources if "Linux version" in (text := (folder / source).read_text()))
    assert "\x1b" not in console


def test_the_environment_is_ascii_and_names_each_host_with_its_realness(run: Run) -> None:
    text = (allure.write(run) / "environment.properties").read_bytes().decode("ascii")

    assert "host.tcg=QEMU 7.2.22 tcg (emulated)\n" in text
    assert "host.uml=User-Mode Linux 6.1.42 (real)\n" in text


def test_writing_twice_gives_the_same_files(run: Run) -> None:
    first = {path.name: path.read_bytes() for path in allure.write(run).iterdir()}

    second = {path.name: path.read_bytes() for path in allure.write(run).iterdir()}

    assert first == second


def test_evidence_of_a_check_is_attached_and_what_leads_elsewhere_is_not(make: ModuleType, tmp_path: Path) -> None:
    maker = make.RunMaker(tmp_path)
    kept = "cells/a/b/c/attempt-1/evidence/x.txt"
    given = make.Result(make.Outcome.FAILED, "x", evidence=(kept, "../../../etc/passwd", "/etc/passwd"))
    layout = maker.cell("a/b/c", {make.check("boot.core"): given})
    (layout.evidence / "x.txt").write_text("seen")
    folder = allure.write(Run.open(maker.finish()))

    (result,) = items(folder, "result")

    assert [each["name"] for each in result["attachments"]] == ["x.txt"]
    assert (folder / result["attachments"][0]["source"]).read_text() == "seen"


def test_a_full_disk_keeps_the_earlier_results(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(path.name for path in allure.write(run).iterdir())

    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(LabDiskFull):
        allure.write(run)
    monkeypatch.undo()

    assert sorted(path.name for path in run.layout.allure_results.iterdir()) == before
    assert [path.name for path in run.layout.root.iterdir() if path.name.startswith(".")] == []
