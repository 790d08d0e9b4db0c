"""Benchmarks tell the truth: who measured nothing, or something else, fails."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import __main__ as table
from benchmarks import bring_up, place, spent
from benchmarks.__main__ import Part
from benchmarks.row import Row
from lab import catalogue, process
from lab.contracts import Cell
from lab.guests.identity import Identity
from lab.inventory.load import load

SOME = spent.Spent(1.0, 0.5)


def row(what: str, *, holds: bool = True) -> Row:
    return Row(what, "1 s", "1 x", "2 s", holds)


def test_a_command_that_fails_has_no_time(tmp_path: Path) -> None:
    with pytest.raises(spent.Failed, match="ended with 3: oops"):
        spent.on(["/bin/sh", "-c", "echo oops >&2; exit 3"], cwd=tmp_path)


def test_what_a_command_leaves_running_is_ended_and_counted(tmp_path: Path) -> None:
    busy = f"{sys.executable} -c 'while True: pass' & echo $! >pid"

    def end() -> None:
        # What burns processor time until then is the point; a fixed amount of it, so that no clock decides.
        pid = int((tmp_path / "pid").read_text())
        while sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13])) < 20:
            continue
        subprocess.run(["kill", str(pid)], check=True)

    taken = spent.on(["/bin/sh", "-c", busy], cwd=tmp_path, afterwards=end)

    assert taken.cpu_s >= 0.19  # twenty clock ticks
    assert process.start_time(int((tmp_path / "pid").read_text())) is None


def test_a_fork_tells_its_own_seconds_and_its_exceptions() -> None:
    assert spent.forked(lambda: 1.25).wall_s == 1.25

    with pytest.raises(spent.Failed, match="ZeroDivisionError"):
        spent.forked(lambda: 1 / 0)


def test_children_that_were_there_before_are_not_waited_for(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "600"]) as before:
        spent.on(["true"], cwd=tmp_path)

        assert before.poll() is None
        before.kill()


def test_sides_take_turns() -> None:
    order = []

    def side(name: str) -> spent.Spent:
        order.append(name)
        return SOME

    taken = spent.in_turns({"a": lambda: side("a"), "b": lambda: side("b")}, 2)

    assert order == ["a", "b", "b", "a"]
    assert {name: len(all_taken) for name, all_taken in taken.items()} == {"a": 2, "b": 2}


def test_a_budget_that_is_spent_ends_the_rounds_but_not_the_first() -> None:
    assert len(spent.in_turns({"a": lambda: SOME}, 5, budget_s=-1.0)["a"]) == 1


def test_a_ratio_is_taken_within_each_round() -> None:
    ours = [spent.Spent(2.0, 1.0), spent.Spent(20.0, 1.0), spent.Spent(4.0, 1.0)]
    theirs = [spent.Spent(1.0, 1.0), spent.Spent(10.0, 1.0), spent.Spent(2.0, 1.0)]

    assert spent.ratio(ours, theirs).wall_s == 2.0


def test_nothing_measured_is_no_number() -> None:
    with pytest.raises(spent.Failed, match="nothing was measured"):
        spent.median([])
    with pytest.raises(spent.Failed, match="nothing was measured"):
        spent.ratio([SOME], [spent.Spent(0.0, 0.0)])


def test_a_part_without_rows_does_not_hold() -> None:
    (told,) = table.measured([Part("hollow", list)], until=time.monotonic() + 60)

    assert (told.what, told.measured, told.holds) == ("hollow", "not measured", False)


def test_a_part_that_fails_does_not_hold_and_does_not_stop_the_others() -> None:
    def fails() -> list[Row]:
        raise spent.Failed("no\nguest")

    told = list(
        table.measured([Part("broken", fails), Part("well", lambda: [row("well")])], until=time.monotonic() + 60)
    )

    assert [(each.what, each.ratio, each.holds) for each in told] == [
        ("broken", "no guest", False),
        ("well", "1 x", True),
    ]
    assert told[1].load


def test_after_the_budget_nothing_is_begun_and_nothing_holds() -> None:
    (told,) = table.measured([Part("late", lambda: [row("late")])], until=time.monotonic() - 1)

    assert (told.ratio, told.holds) == ("the time ran out", False)


def test_what_measured_nothing_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def fails() -> list[Row]:
        tried.append(1)
        raise spent.Failed("too busy")

    monkeypatch.setattr(table, "_busy", lambda: True)

    list(table.measured([Part("part", fails)], until=time.monotonic() + 60))

    assert len(tried) == 1


@pytest.mark.parametrize(("busy", "holds"), [(True, True), (False, False)])
def test_what_fails_is_measured_again_on_a_busy_machine_only(
    monkeypatch: pytest.MonkeyPatch, busy: bool, holds: bool
) -> None:
    answers = [[row("a", holds=False), row("b")], [row("a"), row("b", holds=False)]]
    monkeypatch.setattr(table, "_busy", lambda: busy)

    told = table.measured([Part("part", lambda: answers.pop(0))], until=time.monotonic() + 60)

    assert [(each.what, each.holds) for each in told] == [("a", holds), ("b", True)]


def test_the_page_shows_every_row_with_its_load() -> None:
    text = table.page([Row("a | b", "1 s", "1 x", "2 s", holds=False, load="0.1 to 0.2")])

    assert "| a / b | 1 s | 1 x | 2 s | **no** | 0.1 to 0.2 |" in text
    assert "QEMU" in text


def test_the_made_up_lab_is_one_that_the_lab_believes(tmp_path: Path) -> None:
    ids = place.suites(tmp_path, checks=3, fixture="hypervisor", body="assert hypervisor.name")
    inventory = load(place.inventory(tmp_path, cells=40, at_once=2))

    assert len(list(inventory.matrix.cells())) == 40
    assert tuple(check.id for check in catalogue.load(inventory.suites).checks) == ids


class Reproducible:
    """A machine that says how it was made."""

    def __init__(self, script: str) -> None:
        self._script = script

    def reproduce(self) -> str:
        return self._script


def test_the_script_by_hand_is_the_labs_own_line_with_a_port_and_a_folder_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "of-the-lab"
    script = (
        f"# a remark\nmkdir -p {folder} && cd {folder}\nqemu-img create -q -f qcow2 x {folder}/root.qcow2\n"
        "cp --preserve=mode /gone/seed.img seed.raw\n"
        f"/usr/bin/qemu-system-x86_64 \\\n  -m 512M \\\n  -drive {folder}/root.qcow2 \\\n"
        "  -netdev user,hostfwd=tcp:127.0.0.1:0-10.0.2.15:22\n"
    )
    saved, here = tmp_path / "saved", tmp_path / "here"
    for made in (saved, here):
        made.mkdir()
    (saved / "root.qcow2").touch()
    known = bring_up._parsed(Reproducible(script), saved, Identity.make("a"))  # type: ignore[arg-type]

    cold = bring_up._script(known, here, 4242, cold=True)
    warm = bring_up._script(known, here, 4242, cold=False)

    assert str(folder) not in cold + warm
    assert f"qemu-img create -q -f qcow2 x {here}/root.qcow2" in cold
    assert "hostfwd=tcp:127.0.0.1:4242-10.0.2.15:22 </dev/null" in cold
    assert "-incoming" not in cold
    assert f"-b {saved}/root.qcow2 -F qcow2 {here}/root.qcow2" in warm
    assert f"-incoming fd:5 5<{saved}/state </dev/null" in warm


def test_a_line_that_forwards_no_port_is_not_measured(tmp_path: Path) -> None:
    script = "mkdir -p /x && cd /x\n/usr/bin/qemu-system-x86_64 -m 512M\n"

    with pytest.raises(spent.Failed, match="forwards a port"):
        bring_up._parsed(Reproducible(script), tmp_path, Identity.make("a"))  # type: ignore[arg-type]


def test_a_cell_that_came_up_in_the_other_way_is_not_measured() -> None:
    class Cold:
        warm = False

    class Session:
        _current: object = None

        def _bring_up(self, *, cold: bool) -> Cold:
            return Cold()

    with pytest.raises(spent.Failed, match=f"{Cell.parse('qemu/jeos/pc-bios')} came up cold"):
        bring_up.brought_up(Session(), cold=False)  # type: ignore[arg-type]
