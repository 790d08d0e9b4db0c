"""One controller writes to a run, and only after the cells of the one before it have ended."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import waiting
from lab.errors import LabBusy, RunError, WaitedTooLong
from lab.results.layout import RunLayout
from lab.runner import hold

HOLDER = """
import sys
from pathlib import Path
from lab.results.layout import RunLayout
from lab.runner import hold
layout = RunLayout(Path(sys.argv[2]))
with hold.as_controller(layout) if sys.argv[1] == "controller" else hold.as_cell(layout.cells):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    made = RunLayout(tmp_path / "20260101-000000-0000")
    made.cells.mkdir(parents=True)
    return made


@pytest.fixture
def holder(layout: RunLayout, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the run as `request.param`."""
    words = [sys.executable, "-c", HOLDER, request.param, str(layout.root)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == "held\n"
        yield started
        started.kill()


@pytest.mark.parametrize("holder", ["controller"], indirect=True)
def test_a_second_controller_is_refused(layout: RunLayout, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(LabBusy) as caught, hold.as_controller(layout):
        pass

    assert str(caught.value) == (
        "20260101-000000-0000 is still being run by another process\n"
        "  -> wait for it, or end it with Ctrl-C where it runs"
    )


@pytest.mark.parametrize("holder", ["controller"], indirect=True)
def test_a_killed_controller_holds_nothing(layout: RunLayout, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()

    with hold.as_controller(layout):
        pass


@pytest.mark.parametrize("holder", ["cell"], indirect=True)
def test_a_controller_waits_for_the_cells_of_a_dead_one(
    layout: RunLayout, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hold, "PATIENCE_S", 0.1)

    with (
        pytest.raises(WaitedTooLong, match="the cells of the dead controller of 20260101-000000-0000 to end"),
        hold.as_controller(layout),
    ):
        pass
    holder.kill()
    holder.wait()

    with hold.as_controller(layout):
        pass


@pytest.mark.parametrize("holder", ["cell"], indirect=True)
def test_cells_hold_a_run_together(layout: RunLayout, holder: subprocess.Popen[str]) -> None:
    with hold.as_cell(layout.cells) as is_ours:
        assert is_ours


def test_a_cell_that_begins_while_a_run_is_taken_over_is_told(layout: RunLayout) -> None:
    with hold._lock(layout.cells, hold.fcntl.LOCK_EX), hold.as_cell(layout.cells) as is_ours:
        assert not is_ours


def test_a_controller_lets_its_cells_hold(layout: RunLayout) -> None:
    with hold.as_controller(layout), hold.as_cell(layout.cells) as is_ours:
        assert is_ours


def test_a_run_that_is_not_there_cannot_be_held(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be held: No such file"), hold.as_controller(RunLayout(tmp_path / "no")):
        pass


def test_a_hold_is_not_inherited(layout: RunLayout) -> None:
    """A program that a cell starts must not hold the run for ever."""
    with hold.as_controller(layout):
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        with hold.as_controller(layout):
            pass
    finally:
        child.kill()
        waiting.until(lambda: child.poll() is not None, what="the child to end", timeout_s=60)
