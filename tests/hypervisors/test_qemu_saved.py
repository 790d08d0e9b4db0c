"""QEMU machines that sleep: real QEMU, and a guest of one sector that counts on its disk and on its console."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from lab import waiting
from lab.contracts import MachineSpec, MachineState
from lab.errors import HypervisorRefused, NotSupported
from lab.hypervisors import _qemu_memory, qemu
from lab.hypervisors._qemu_machine import QemuMachine

Sector = Callable[..., MachineSpec]


@pytest.fixture
def machine(ticker: Any) -> QemuMachine:
    made: QemuMachine = ticker.machine
    return made


def test_a_machine_that_slept_goes_on_where_it_was(machine: QemuMachine, ticker: Any) -> None:
    machine.save_state()

    assert machine.state() is MachineState.STOPPED
    assert machine.has_saved_state()
    slept = ticker.counts()[-1]
    machine.start()
    assert machine.state() is MachineState.RUNNING
    assert ticker.counts_on() > slept
    assert ticker.stumbles() == []
    assert not machine.has_saved_state()
    assert not machine.directory.saved.exists()


def test_a_machine_whose_sleep_is_discarded_boots_from_its_disk(machine: QemuMachine, ticker: Any) -> None:
    machine.save_state()
    slept = ticker.counts()[-1]

    machine.discard_saved_state()
    machine.discard_saved_state()

    assert not machine.has_saved_state()
    machine.start()
    assert ticker.counts_on() > slept
    assert ticker.boots() == 2


def test_another_process_wakes_a_machine(machine: QemuMachine, ticker: Any) -> None:
    machine.save_state()
    script = (
        "from lab.hypervisors import qemu\n"
        "with qemu.connect('here', qemu.Settings(accelerator='tcg')) as host:\n"
        "    ((owner, machine),) = host.machines()\n"
        "    print(machine.has_saved_state(), machine.state())\n"
        "    machine.start()\n"
    )

    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)

    assert said.stdout.split() == ["True", "stopped"]
    assert machine.state() is MachineState.RUNNING
    ticker.counts_on()
    assert ticker.boots() == 1


def test_a_machine_asleep_is_not_destroyed_by_halves(machine: QemuMachine) -> None:
    machine.save_state()

    machine.destroy()

    assert machine.state() is MachineState.GONE
    assert not machine.directory.path.exists()


def test_a_save_that_cannot_end_leaves_the_machine_running(
    machine: QemuMachine, ticker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise HypervisorRefused("QEMU could not save the memory: for a test")

    monkeypatch.setattr(_qemu_memory, "write", fails)

    with pytest.raises(HypervisorRefused, match="QEMU could not save the memory: for a test"):
        machine.save_state()

    assert machine.state() is MachineState.RUNNING
    assert not machine.has_saved_state()
    ticker.counts_on()


def test_a_damaged_memory_is_refused_and_can_be_discarded(machine: QemuMachine, ticker: Any) -> None:
    machine.save_state()
    machine.directory.saved.write_bytes(b"damaged")

    with pytest.raises(
        HypervisorRefused, match=r"the saved memory of one cannot be loaded: .*\n  -> discard it to boot"
    ):
        machine.start()

    assert machine.state() is MachineState.STOPPED
    assert machine.has_saved_state()
    machine.discard_saved_state()
    machine.start()
    ticker.counts_on()


def test_a_machine_killed_while_it_falls_asleep_is_asleep(
    machine: QemuMachine, ticker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if the lab's process ended right after the mark was written: QEMU is still there.
    with monkeypatch.context() as patch:
        patch.setattr("lab.hypervisors._qemu_power.kill", lambda _: None)
        machine.save_state()
    running = machine.directory.running()
    assert running is not None
    assert running.is_alive()

    assert machine.state() is MachineState.STOPPED

    assert not running.is_alive()
    machine.start()
    ticker.counts_on()
    assert ticker.boots() == 1


def test_a_machine_killed_in_its_sleep_and_one_that_never_ran_have_nothing_to_save(
    qemu_host: qemu.QemuHost, sector: Sector, machine: QemuMachine
) -> None:
    running = machine.directory.running()
    assert running is not None
    os.kill(running.pid, signal.SIGKILL)
    waiting.until(lambda: machine.state() is MachineState.GONE, what="QEMU to end", timeout_s=60)

    with pytest.raises(HypervisorRefused, match="one does not run, so there is no memory to save"):
        machine.save_state()
    other = qemu_host.create(sector("idle", "two"))
    assert isinstance(other, QemuMachine)
    with pytest.raises(HypervisorRefused, match="two does not run"):
        other.save_state()


def test_nvme_is_refused_with_its_reason(qemu_host: qemu.QemuHost, sector: Sector) -> None:
    spec = sector("idle")
    machine = qemu_host.create(replace(spec, profile=replace(spec.profile, disk="nvme", chipset="q35")))
    assert isinstance(machine, QemuMachine)
    machine.start()

    with pytest.raises(NotSupported, match="QEMU cannot save the state of an NVMe controller"):
        machine.save_state()

    assert machine.state() is MachineState.RUNNING
