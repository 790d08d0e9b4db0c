"""Checks by `pytest suites --lab-cell` in a real guest: User-Mode Linux, because it boots in seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.results.record import Outcome
from lab.results.store import Run

REPOSITORY = Path(__file__).parents[2]
CHECKS = ("boot/test_core.py", "device/test_serial_console.py", "firmware", "net/test_ip_reporting.py")

pytestmark = [pytest.mark.minutes, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    directory = tmp_path_factory.mktemp("runs") / "run"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--disable-plugin-autoload",
        "-p",
        "timeout",
        "-p",
        "lab.pytest_plugin",
    ]
    command += [str(REPOSITORY / "suites" / "conformance" / name) for name in CHECKS]
    command += ["--lab-inventory", "inventories/local", "--lab-cell", "uml/jeos/uml", "--lab-directory", str(directory)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=840)
    assert done.returncode == 0, done.stdout + done.stderr
    return Run.open(directory)


def test_every_check_that_applies_passes_in_a_guest_without_defect(run: Run) -> None:
    not_well = {
        record.check.partition("::")[2]: record.reason
        for record in run.records()
        if record.outcome.badness > Outcome.PASSED.badness
    }
    # What User-Mode Linux cannot have, in its own words.
    assert not_well == {
        "test_agent_tells_the_addresses_of_each_card": "User-Mode Linux has no agent of its own and no channel for one"
    }
    assert sum(record.outcome is Outcome.PASSED for record in run.records()) >= 10


def test_firmware_is_not_applicable_where_there_is_none(run: Run) -> None:
    found = {record.outcome for record in run.records() if record.feature.startswith("firmware.")}
    assert found == {Outcome.NOT_APPLICABLE}


def test_the_directory_is_a_run_like_any_other(run: Run) -> None:
    assert run.problems() == []
    assert run.document.finished is not None
    (cell,) = run.cells()
    assert cell.last.document is not None
    assert cell.last.document.outcome is Outcome.UNSUPPORTED  # the worst of its records
    assert (cell.last.layout.root / "console.log").stat().st_size > 0
