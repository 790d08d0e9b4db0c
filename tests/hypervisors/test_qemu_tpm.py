"""The TPM's process: it lives and dies with its machine; real QEMU and swtpm, guests of one sector."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lab import process, waiting
from lab.contracts import Capability, EmulatesTpm, MachineSpec, MachineState
from lab.errors import MissingTool
from lab.hypervisors import _qemu_tpm, qemu
from lab.hypervisors._qemu_host import QemuHost
from lab.hypervisors._qemu_machine import QemuMachine
from lab.hypervisors._qemu_store import Running

Sector = Callable[..., MachineSpec]


@pytest.fixture(params=["pc", "q35"])
def trusted(qemu_host: QemuHost, sector: Sector, request: pytest.FixtureRequest) -> QemuMachine:
    spec = sector("idle")
    machine = qemu_host.create(replace(spec, profile=replace(spec.profile, tpm=True, chipset=request.param)))
    assert isinstance(machine, QemuMachine)
    assert isinstance(machine, EmulatesTpm)
    machine.start()
    # Until then SeaBIOS still starts the TPM, and its counters change.
    waiting.until(lambda: b"Booting from" in machine.console(), what="the firmware to be done", timeout_s=60)
    return machine


def running_of(machine: QemuMachine) -> Running:
    running = machine.directory.running()
    assert running is not None
    assert running.tpm_pid
    return running


def ends(running: Running) -> None:
    waiting.until(
        lambda: not process.is_alive(running.tpm_pid, running.tpm_started), what="the TPM to end", timeout_s=60
    )


def test_a_tpm_runs_beside_its_machine_and_ends_with_it(trusted: QemuMachine) -> None:
    running = running_of(trusted)
    assert process.is_alive(running.tpm_pid, running.tpm_started)
    assert trusted.tpm_version() == "2.0"

    trusted.stop(force=True)

    assert not process.is_alive(running.tpm_pid, running.tpm_started)
    trusted.start()
    assert running_of(trusted).tpm_pid != running.tpm_pid


def test_a_tpm_ends_when_machine_and_keeper_are_killed(trusted: QemuMachine) -> None:
    running = running_of(trusted)

    os.kill(running.keeper_pid, signal.SIGKILL)
    os.kill(running.pid, signal.SIGKILL)

    ends(running)
    waiting.until(lambda: trusted.state() is MachineState.GONE, what="the machine to be gone", timeout_s=60)
    trusted.start()
    assert trusted.state() is MachineState.RUNNING


def test_destroying_a_machine_leaves_no_tpm(trusted: QemuMachine) -> None:
    running = running_of(trusted)
    os.kill(running.keeper_pid, signal.SIGKILL)

    trusted.destroy()

    assert not process.is_alive(running.tpm_pid, running.tpm_started)
    assert not trusted.directory.path.exists()


def test_a_machine_goes_on_without_its_tpm(trusted: QemuMachine) -> None:
    running = running_of(trusted)

    os.kill(running.tpm_pid, signal.SIGKILL)

    ends(running)
    assert trusted.state() is MachineState.RUNNING


def test_the_state_of_a_tpm_is_this_users_alone(trusted: QemuMachine) -> None:
    folder = trusted.directory.path / _qemu_tpm.STATE
    waiting.until(lambda: list(folder.glob("tpm2-*")), what="the TPM to write its state", timeout_s=60)

    assert folder.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.glob("tpm2-*"))


def test_a_tpm_can_be_made_by_hand(trusted: QemuMachine) -> None:
    script = trusted.reproduce()

    assert "swtpm socket --tpm2 --tpmstate dir=tpm,mode=0600 --ctrl type=unixio,path=tpm.sock --terminate" in script
    assert "-chardev socket,id=tpm,path=tpm.sock" in script


def test_a_machine_without_a_tpm_has_no_process_for_one(qemu_host: QemuHost, sector: Sector) -> None:
    machine = qemu_host.create(sector("idle"))
    assert isinstance(machine, QemuMachine)
    machine.start()

    running = machine.directory.running()

    assert running is not None
    assert running.tpm_pid == 0
    assert machine.tpm_version() == ""
    assert "swtpm" not in machine.reproduce()


def test_without_the_emulator_the_remedy_is_told(
    sector: Sector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = sector("idle")
    for name in ("qemu-system-x86_64", "qemu-img"):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).symlink_to(process.find(name, package="qemu"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    with qemu.connect("here", qemu.Settings(accelerator="tcg")) as host:
        assert host.limits()[Capability.TPM] == "swtpm is not on this machine (apt-get install swtpm swtpm-tools)"
        with pytest.raises(MissingTool, match="swtpm_setup is not on this machine") as caught:
            host.create(replace(spec, profile=replace(spec.profile, tpm=True)))
    assert caught.value.hint == "apt-get install swtpm-tools"


def test_a_warm_clone_has_the_tpm_of_its_source(qemu_host: QemuHost, trusted: QemuMachine) -> None:
    key = qemu_host.warm_key(trusted.spec)
    other = qemu_host.create(replace(trusted.spec, name="other"))
    assert isinstance(other, QemuMachine)
    other.start()
    qemu_host.save_warm(key, trusted, b"")

    clone = qemu_host.clone_warm(key, replace(trusted.spec, name="clone"))

    assert isinstance(clone, QemuMachine)
    assert clone.state() is MachineState.RUNNING
    assert trusted.state() is MachineState.RUNNING
    assert running_of(clone).tpm_pid != running_of(trusted).tpm_pid
    assert kept(clone) == kept(trusted)
    assert kept(other) != kept(trusted)
    clone.stop(force=True)
    clone.start()
    assert kept(clone) == kept(trusted)


def test_a_snapshot_brings_back_the_tpm(trusted: QemuMachine) -> None:
    trusted.snapshot("one")
    before = kept(trusted)
    trusted.stop(force=True)
    (trusted.directory.path / _qemu_tpm.STATE / "tpm2-00.permall").unlink()

    trusted.restore("one")

    assert trusted.state() is MachineState.RUNNING
    assert kept(trusted) == before


def test_a_machine_that_slept_has_its_tpm(trusted: QemuMachine) -> None:
    before = kept(trusted)

    trusted.save_state()
    trusted.start()

    assert trusted.state() is MachineState.RUNNING
    assert kept(trusted) == before


def test_a_machine_that_moves_takes_its_tpm_along(trusted: QemuMachine) -> None:
    before, left = kept(trusted), running_of(trusted)

    trusted.migrate_live(trusted.destinations()[0], with_storage=True)

    assert trusted.state() is MachineState.RUNNING
    assert running_of(trusted).tpm_pid != left.tpm_pid
    ends(left)
    assert kept(trusted) == before


def kept(machine: QemuMachine) -> bytes:
    """The permanent state: seeds, and what the guest stored."""
    return (machine.directory.here / _qemu_tpm.STATE / "tpm2-00.permall").read_bytes()
