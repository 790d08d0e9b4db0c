"""`lab qualify` over a hypervisor that really runs a guest."""

from __future__ import annotations

import json
import signal
from collections import Counter

import pytest

from lab import waiting
from tests.runner.conftest import Lab

pytestmark = [pytest.mark.minutes, pytest.mark.timeout(1200)]


def test_user_mode_linux_qualifies(lab: Lab) -> None:
    # The tests of the driver itself run the whole contract.
    features = ("host", "machines", "guest", "tpm", "serial_input", "disk_hotplug", "nic_hotplug")
    chosen = [word for feature in features for word in ("--feature", f"driver.{feature}")]
    started = lab.start("qualify", str(lab.inventory), "uml", "--json", "--reports", str(lab.reports), *chosen)
    out, _ = started.communicate(timeout=900)

    (run,) = lab.runs()
    records = lab.records(run)
    counts = Counter(record["outcome"] for record in records)
    assert started.returncode == 0, [record for record in records if record["outcome"] == "failed"]
    assert json.loads(out)["run"] == run.name
    assert set(counts) == {"passed", "unsupported"}
    assert counts["passed"] >= 20
    assert {record["realness"] for record in records} == {"real"}
    (cell,) = lab.cells(run)
    assert cell["host"]["product"] == "User-Mode Linux"
    assert b"Linux version" in (run / "cells/uml/jeos/uml/attempt-1/console.log").read_bytes()
    assert lab.machine_files() == []


def test_an_interrupted_qualification_undoes_everything_and_is_taken_up_again(lab: Lab) -> None:
    chosen = [word for feature in ("host", "guest", "power") for word in ("--feature", f"driver.{feature}")]
    started = lab.start("qualify", str(lab.inventory), "uml", "--reports", str(lab.reports), *chosen)

    def has_records() -> bool:
        return len(lab.runs()) == 1 and len(lab.records(lab.runs()[0])) > 6

    waiting.until(has_records, what="some promises to be judged", timeout_s=600)
    waiting.until(lab.machine_files, what="a machine to be left behind", timeout_s=120)
    started.send_signal(signal.SIGINT)
    started.communicate(timeout=180)

    assert started.returncode == 130
    assert lab.machine_files() == []
    waiting.until(lambda: not lab.processes(), what="no process to be left", timeout_s=60)
    assert lab.journal(lab.runs()[0])[-1]["event"] == "interrupted"

    code, out = lab.run("--resume", "last")

    assert code == 0, out
    assert {record["outcome"] for record in lab.records(lab.runs()[0])} == {"passed"}
    assert len(lab.records(lab.runs()[0])) == 12
    assert lab.machine_files() == []
