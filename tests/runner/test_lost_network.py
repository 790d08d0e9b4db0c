"""A real guest loses its network while its checks run: one failure that says so, and the rest blocked by it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lab import waiting
from lab.hypervisors import _qemu_monitor

pytestmark = [pytest.mark.minutes, pytest.mark.timeout(900)]

REPOSITORY = Path(__file__).parents[2]
# The fourth waits for what happens to its guest: the cable is pulled while it runs, however fast the others were.
CHECKS = """
from lab.suite import check

""" + "".join(
    f'''
@check("boot.core", level="smoke", timeout_s=600)
def test_{letter}(guest):
    """Catches a guest that is lost."""
    assert guest.run(*{words!r}, timeout_s=500).status == 0
'''
    for letter, words in zip("abcdefgh", [("true",)] * 3 + [("sleep", "400")] + [("true",)] * 4, strict=True)
)


def pull_the_cable(lab: Any) -> None:
    """Take the link of the guest's network card down, from outside, once three checks have run."""
    records = lambda: list(lab.reports.glob("runs/*/cells/*/*/*/attempt-1/records.jsonl"))  # noqa: E731
    waiting.until(
        lambda: any(path.read_bytes().count(b"\n") == 3 for path in records()), what="three checks", timeout_s=300
    )
    (mark,) = lab.machine_files()

    def pulled() -> bool:
        try:
            with _qemu_monitor.talk(mark.parent) as monitor:
                monitor.command("set_link", {"name": "nic0", "up": False})
        except _qemu_monitor.MonitorLost:
            return False  # it takes one visitor at a time, and the lab may be there now
        return True

    waiting.until(pulled, what="the cable to be pulled", timeout_s=60)


@pytest.fixture(scope="module")
def run(shared_lab: Any) -> tuple[int, str, list[dict[str, Any]]]:
    """The exit status, the output and the records of a run whose guest loses its network."""
    inventories, suites = shared_lab.place / "inventories", shared_lab.place / "suites"
    shutil.copytree(REPOSITORY / "inventories", inventories)
    (suites / "conformance" / "boot").mkdir(parents=True)
    shutil.copy(REPOSITORY / "suites" / "features.yaml", suites)
    (suites / "conformance" / "boot" / "test_lost.py").write_text(CHECKS)
    (inventories / "local" / "matrix.yaml").write_text(
        f"hosts: [qemu]\nguests: [jeos]\nprofiles: [pc-bios]\nsuites: [smoke]\nsuites_from: {suites}\n"
    )
    shared_lab.inventory = inventories / "local"
    started = shared_lab.start(*shared_lab.run_words())
    pull_the_cable(shared_lab)
    out, _ = started.communicate(timeout=600)
    return started.returncode, out, shared_lab.records(shared_lab.runs()[0])


def test_it_is_one_failure_of_the_product(run: tuple[int, str, list[dict[str, Any]]]) -> None:
    status, out, records = run
    failed = [record for record in records if record["outcome"] in ("failed", "broken")]

    assert status == 1, out
    assert [(record["outcome"], record["blame"]) for record in failed] == [("failed", "product")], failed
    assert failed[0]["reason"].startswith("GuestUnreachable: the guest was lost during 'sleep 400'")


def test_the_rest_is_blocked_and_says_by_what(run: tuple[int, str, list[dict[str, Any]]]) -> None:
    _, _, records = run
    (failed,) = [record for record in records if record["outcome"] == "failed"]
    blocked = [record for record in records if record["outcome"] == "blocked"]

    assert len(blocked) == 4
    assert {record["reason"] for record in blocked} == {f"the cell was stopped by: {failed['reason']}"}
    assert {record["blame"] for record in blocked} == {"product"}


def test_every_planned_check_has_a_record_and_nothing_is_left(
    shared_lab: Any, run: tuple[int, str, list[dict[str, Any]]]
) -> None:
    _, _, records = run
    plan = json.loads((Path(shared_lab.runs()[0]) / "plan.json").read_text())

    assert sorted(record["check"] for record in records) == sorted(plan["cells"][0]["checks"])
    assert sum(record["outcome"] == "passed" for record in records) == 3
    waiting.until(lambda: not shared_lab.processes(), what="no process to be left", timeout_s=180)
    assert shared_lab.machine_files() == []
