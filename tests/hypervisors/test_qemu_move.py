"""Live migration of QEMU machines: real QEMU, a guest of one sector that writes and counts, and faults on purpose."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from lab import process, waiting
from lab.contracts import MachineSpec, MachineState
from lab.errors import HypervisorRefused, NotSupported
from lab.hypervisors import _qemu_mirror, _qemu_move, qemu
from lab.hypervisors._qemu_machine import QemuMachine
from lab.hypervisors._qemu_store import Running

Sector = Callable[..., MachineSpec]
WITH_OR_WITHOUT = pytest.mark.parametrize("with_storage", [False, True], ids=["shared-disks", "with-disks"])


def processes(machine: QemuMachine) -> list[int]:
    """Every QEMU that runs for that machine, whatever its files say: its name is on the command line."""
    said = subprocess.run(["pgrep", "-f", f"guest={machine.name} .*-nodefaults"], capture_output=True, text=True)
    of_this = []
    for pid in map(int, said.stdout.split()):
        try:
            folder = os.readlink(f"/proc/{pid}/cwd")  # noqa: PTH115
        except FileNotFoundError:
            continue
        if folder.startswith(str(machine.directory.path)):
            of_this.append(pid)
    return of_this


def running_of(machine: QemuMachine) -> Running:
    running = machine.directory.running()
    assert running is not None
    return running


@WITH_OR_WITHOUT
def test_a_machine_moves_there_and_back_while_it_writes(ticker: Any, with_storage: bool) -> None:
    machine = ticker.machine
    endpoint, places = machine.endpoint(22), [machine.place()]

    for _ in range(2):
        (destination,) = machine.destinations()
        before = running_of(machine)
        moved = machine.migrate_live(destination, with_storage=with_storage)

        assert machine.place() == destination
        assert machine.state() is MachineState.RUNNING
        assert not before.is_alive()
        assert processes(machine) == [running_of(machine).pid]
        assert machine.endpoint(22) == endpoint
        assert 0 < moved.downtime_ms < moved.seconds * 1000
        assert moved.transferred_bytes > 100_000
        ticker.counts_on()
        places.append(destination)

    assert places[0] == places[2] != places[1]
    assert ticker.stumbles() == []
    assert {path.name for path in machine.directory.path.iterdir()}.isdisjoint({"second", "nbd.sock"})


@WITH_OR_WITHOUT
def test_what_was_written_before_and_after_is_there_after_a_power_cut(ticker: Any, with_storage: bool) -> None:
    machine = ticker.machine
    (destination,) = machine.destinations()
    machine.migrate_live(destination, with_storage=with_storage)
    last = ticker.counts_on()

    machine.stop(force=True)

    assert machine.place() == destination
    machine.start()
    assert ticker.counts_on() > last
    assert ticker.boots() == 2


def test_the_ports_lead_to_the_machine_that_moved(ticker: Any) -> None:
    machine = ticker.machine
    other = machine.endpoint(8080)

    machine.migrate_live("second", with_storage=False)

    assert machine.endpoint(8080) == other
    said = subprocess.run(["ss", "-ltnpH", f"sport = :{other.port}"], capture_output=True, text=True, check=True)
    assert f"pid={running_of(machine).pid}," in said.stdout


def test_a_machine_that_moved_can_sleep_and_be_kept(ticker: Any) -> None:
    machine = ticker.machine
    machine.migrate_live("second", with_storage=True)
    ticker.counts_on()

    machine.save_state()
    machine.start()
    machine.snapshot("kept")
    ticker.counts_on()
    machine.restore("kept")

    ticker.counts_on()
    assert ticker.boots() == 1


def test_a_destination_that_dies_leaves_the_machine_where_it_was(ticker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = ticker.machine
    before = running_of(machine)
    begun = _qemu_mirror.begin

    def dies(*given: Any) -> None:
        begun(*given)
        arriving = given[1].running()
        os.kill(arriving.pid, signal.SIGKILL)

    with monkeypatch.context() as patched:
        patched.setattr(_qemu_mirror, "begin", dies)
        with pytest.raises(HypervisorRefused):
            machine.migrate_live("second", with_storage=True)

    assert machine.directory.read().move is None
    assert machine.place() == "first"
    assert processes(machine) == [before.pid]
    ticker.counts_on()
    assert ticker.stumbles() == []
    machine.migrate_live("second", with_storage=True)
    ticker.counts_on()


def test_a_copy_that_fails_while_it_is_broken_off_is_cleared_away_too() -> None:
    class Source:
        """QEMU whose copy fails between the question how it is and the order to break it off."""

        def __init__(self) -> None:
            self.jobs = {"copy-root": "running"}
            self.nodes = ["far-root", "root"]

        def command(self, name: str, arguments: dict[str, object] | None = None) -> Any:
            match name:
                case "query-jobs":
                    return [{"id": name, "status": status} for name, status in self.jobs.items()]
                case "query-named-block-nodes":
                    return [{"node-name": node} for node in self.nodes]
                case "block-job-cancel":
                    self.jobs["copy-root"] = "concluded"
                    raise HypervisorRefused("job copy-root in state concluded cannot accept command verb cancel")
                case "job-dismiss":
                    del self.jobs["copy-root"]
                case "blockdev-del":
                    self.nodes.remove(str((arguments or {})["node-name"]))
            return None

        def until(self, probe: Callable[[], bool], **_: Any) -> bool:
            return waiting.until(probe, what="the copy to end", timeout_s=0)

    source = Source()

    _qemu_mirror.clean(source)  # type: ignore[arg-type]

    assert (source.jobs, source.nodes) == ({}, ["root"])


def test_a_source_that_dies_is_gone_and_nothing_stays_of_the_other(
    ticker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = ticker.machine
    begun = _qemu_mirror.begin

    def dies(*given: Any) -> None:
        begun(*given)
        os.kill(running_of(machine).pid, signal.SIGKILL)

    monkeypatch.setattr(_qemu_mirror, "begin", dies)

    with pytest.raises(HypervisorRefused):
        machine.migrate_live("second", with_storage=True)

    assert machine.state() is MachineState.GONE
    assert processes(machine) == []
    machine.start()
    ticker.counts_on()


def test_a_migration_that_takes_too_long_is_taken_back(ticker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = ticker.machine
    monkeypatch.setattr(_qemu_mirror, "is_level", lambda *_: False)

    with pytest.raises(HypervisorRefused, match=r"the migration did not end within 1 s: waited .* for the disks"):
        machine.migrate_live("second", with_storage=True, timeout_s=1.0)

    assert machine.place() == "first"
    assert len(processes(machine)) == 1
    ticker.counts_on()
    assert ticker.stumbles() == []


STEPS = {
    "before the other begins": ("_qemu_power.launch_beside", 1),
    "while disks are copied": ("_qemu_mirror.is_level", 1),
    "with the processors at rest": ("_qemu_mirror.finish", 1),
    "before the memory left": ("_qemu_memory.ended", 1),
    "before it is said to be there": ("_qemu_store.Directory.change", 2),
    "before the old process ends": ("_qemu_power.kill_at", 1),
    "before the ports lead there": ("_qemu_ports.again", 1),
    "before the old place is cleared": ("_qemu_move._clear", 2),
}


@pytest.mark.parametrize("step", STEPS)
def test_a_lab_killed_at_any_step_leaves_one_machine(ticker: Any, step: str) -> None:
    """The process that migrates kills itself at that call, when it comes to it for that time."""
    machine = ticker.machine
    endpoint = machine.endpoint(22)
    call, occasion = STEPS[step]
    module, _, function = call.partition(".")
    script = f"""
import os, signal
from lab.hypervisors import qemu, {module}
owner, _, name = "{function}".rpartition(".")
holder = getattr({module}, owner) if owner else {module}
original, calls = getattr(holder, name), []
def dies(*given, **named):
    calls.append(None)
    if len(calls) == {occasion}:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*given, **named)
with qemu.connect('here', qemu.Settings(accelerator='tcg')) as host:
    ((_, machine),) = host.machines()
    setattr(holder, name, dies)
    machine.migrate_live("second", with_storage=True)
"""

    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=120)

    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert machine.state() is MachineState.RUNNING
    assert len(processes(machine)) == 1
    assert machine.directory.read().move is None
    ticker.counts_on()
    assert ticker.stumbles() == []
    assert machine.endpoint(22) == endpoint
    machine.migrate_live(machine.destinations()[0], with_storage=True)
    ticker.counts_on()
    assert ticker.stumbles() == []


def test_a_machine_is_destroyed_with_both_its_processes(ticker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = ticker.machine
    monkeypatch.setattr(_qemu_move, "_stay", lambda _: None)
    monkeypatch.setattr(_qemu_mirror, "is_level", lambda *_: False)
    with pytest.raises(HypervisorRefused):
        machine.migrate_live("second", with_storage=True, timeout_s=0.5)
    pids = processes(machine)
    assert len(pids) == 2

    machine.destroy()

    waiting.until(lambda: all(process.start_time(pid) is None for pid in pids), what="both to end", timeout_s=60)
    assert not machine.directory.path.exists()


def test_what_cannot_move_says_why(qemu_host: qemu.QemuHost, sector: Sector, ticker: Any) -> None:
    machine = ticker.machine
    with pytest.raises(HypervisorRefused, match=r"one cannot be brought to 'moon' \(it can be brought to second\)"):
        machine.migrate_live("moon", with_storage=False)
    machine.snapshot("kept")
    with pytest.raises(HypervisorRefused, match="one has snapshots, which a copy of its disks would not have"):
        machine.migrate_live("second", with_storage=True)
    spec = sector("idle", "two")
    other = qemu_host.create(replace(spec, profile=replace(spec.profile, disk="nvme", chipset="q35")))
    assert isinstance(other, QemuMachine)
    assert other.destinations() == ()
    other.start()
    with pytest.raises(NotSupported, match="QEMU cannot save the state of an NVMe controller"):
        other.migrate_live("second", with_storage=False)
    assert other.state() is MachineState.RUNNING
