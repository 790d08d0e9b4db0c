"""Power, events, console and faults of QEMU machines, with real QEMU and guests of one sector."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lab import process, waiting
from lab.contracts import Machine, MachineSpec, MachineState, Profile
from lab.errors import HypervisorRefused, LabBusy, LabDiskFull, MachineVanished, WaitedTooLong
from lab.hypervisors import _qemu_host, _qemu_keeper, _qemu_ports, _qemu_store, qemu
from lab.hypervisors._qemu_host import QemuHost
from lab.hypervisors._qemu_machine import QemuMachine

Sector = Callable[..., MachineSpec]


def started(host: QemuHost, spec: MachineSpec) -> QemuMachine:
    machine = host.create(spec)
    assert isinstance(machine, QemuMachine)
    machine.start()
    return machine


def becomes(machine: Machine, state: MachineState) -> None:
    waiting.until(lambda: machine.state() is state, what=f"{machine.name} to be {state}", timeout_s=60)


def running_of(machine: QemuMachine) -> _qemu_store.Running:
    running = machine.directory.running()
    assert running is not None
    return running


def test_a_qemu_killed_from_outside_is_gone_and_its_last_words_are_told(qemu_host: QemuHost, sector: Sector) -> None:
    machine = started(qemu_host, sector("idle"))

    os.kill(running_of(machine).pid, signal.SIGTERM)

    becomes(machine, MachineState.GONE)
    with pytest.raises(MachineVanished, match=r"QEMU process of one ended unasked: .*terminating on signal 15"):
        machine.endpoint(22)
    with pytest.raises(MachineVanished):
        machine.pause()


def test_a_machine_that_was_killed_starts_again(qemu_host: QemuHost, sector: Sector) -> None:
    machine = started(qemu_host, sector("idle"))
    os.kill(running_of(machine).pid, signal.SIGKILL)
    becomes(machine, MachineState.GONE)

    machine.start()

    assert machine.state() is MachineState.RUNNING


def test_a_machine_whose_image_is_locked_for_a_moment_starts_after_it(qemu_host: QemuHost, sector: Sector) -> None:
    machine = qemu_host.create(sector("idle"))
    assert isinstance(machine, QemuMachine)
    # It opens the disk for writing, as another QEMU would, and says so.
    asked = ("-f", "qcow2", "-c", "read 0 512", "-c", "sleep 3000", str(machine.directory.root))
    with subprocess.Popen(("stdbuf", "-oL", "qemu-io", *asked), stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert b"read 512/512" in other.stdout.readline()

        machine.start()

        assert other.wait(60) == 0
    assert machine.state() is MachineState.RUNNING


def test_a_guest_that_powers_off_is_stopped(qemu_host: QemuHost, sector: Sector) -> None:
    machine = started(qemu_host, sector("powering_off"))

    becomes(machine, MachineState.STOPPED)

    waiting.until(lambda: not running_of(machine).is_alive(), what="QEMU to end", timeout_s=60)
    assert machine.state() is MachineState.STOPPED


def test_a_machine_outlives_its_keeper_and_can_be_destroyed_without_it(qemu_host: QemuHost, sector: Sector) -> None:
    machine = started(qemu_host, sector("idle"))
    running = running_of(machine)
    os.kill(running.keeper_pid, signal.SIGKILL)
    waiting.until(
        lambda: not process.is_alive(running.keeper_pid, running.keeper_started), what="the keeper", timeout_s=60
    )

    assert machine.state() is MachineState.RUNNING
    machine.destroy()
    assert not running.is_alive()


def test_a_guest_that_panics_is_crashed_until_it_resets(qemu_host: QemuHost, sector: Sector) -> None:
    machine = started(qemu_host, sector("panicking"))

    becomes(machine, MachineState.CRASHED)

    machine.stop(force=True)
    assert machine.state() is MachineState.STOPPED


def test_resets_by_the_guest_are_counted(qemu_host: QemuHost, sector: Sector) -> None:
    machine = started(qemu_host, sector("resetting"))

    waiting.until(lambda: machine.resets() >= 3, what="three resets", timeout_s=60)

    other = started(qemu_host, sector("idle", "two"))
    assert other.resets() == 0


def test_a_guest_that_ignores_the_power_button_is_waited_for_and_then_named(
    qemu_host: QemuHost, sector: Sector
) -> None:
    machine = started(qemu_host, sector("idle"))

    with pytest.raises(WaitedTooLong, match="one to shut down after the power button"):
        machine.stop(timeout_s=0.5)

    assert machine.state() is MachineState.RUNNING


def test_an_endless_console_keeps_its_beginning_and_its_end(qemu_host: QemuHost, sector: Sector) -> None:
    machine = started(qemu_host, sector("endless"))
    left_out = machine.directory.console.part("left-out")

    waiting.until(left_out.exists, what="the console to outgrow its limit", timeout_s=240)

    machine.stop(force=True)
    kept = sum(path.stat().st_size for path in machine.directory.path.glob("console.log*"))
    assert kept <= _qemu_keeper.HEAD_BYTES + 2 * _qemu_keeper.TAIL_BYTES + 32
    shown = machine.console()
    assert b"bytes left out here]" in shown
    assert shown.endswith(b"x" * 1000)


def test_destroying_from_another_process_leaves_nothing(qemu_host: QemuHost, sector: Sector) -> None:
    machine = started(qemu_host, sector("idle"))
    running = running_of(machine)
    script = (
        "from lab.hypervisors import qemu\n"
        "with qemu.connect('here', qemu.Settings(accelerator='tcg')) as host:\n"
        "    ((owner, machine),) = host.machines()\n"
        "    print(owner.run, machine.name, machine.state())\n"
        "    machine.destroy(); machine.destroy()\n"
    )

    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)

    assert said.stdout.split() == ["run", "one", "running"]
    assert not running.is_alive()
    assert not machine.directory.path.exists()
    assert machine.state() is MachineState.GONE
    assert list(qemu_host.machines()) == []


def test_machines_survive_the_process_that_made_them(qemu_host: QemuHost, sector: Sector, tmp_path: Path) -> None:
    spec = sector("idle")
    script = (
        "import sys\nfrom pathlib import Path\nfrom lab.contracts import *\nfrom lab.hypervisors import qemu\n"
        "spec = MachineSpec('orphan', Owner('dead', 'a/b/c', 1, 2), Image('i', 'sha256:0', Path(sys.argv[1]), 'raw'),"
        " Profile('p', Firmware.BIOS, 'pc', 'virtio', 'virtio', 1, 32))\n"
        "with qemu.connect('here', qemu.Settings(accelerator='tcg')) as host:\n"
        "    host.create(spec).start()\n"
    )
    subprocess.run([sys.executable, "-c", script, str(spec.image.disk)], timeout=120, check=True)

    ((owner, machine),) = qemu_host.machines()

    assert (owner.run, owner.pid, owner.pid_started) == ("dead", 1, 2)
    assert machine.state() is MachineState.RUNNING


def test_a_fixed_port_that_is_taken_is_named(sector: Sector) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with qemu.connect("here", qemu.Settings(accelerator="tcg", ssh_port=port)) as host:
            machine = host.create(sector("idle"))
            with pytest.raises(LabBusy, match=rf"a port of 127\.0\.0\.1 is taken: .*{port}") as caught:
                machine.start()
            machine.destroy()
    assert "ssh_port" in caught.value.hint


def test_a_restart_takes_another_port_when_its_own_is_taken(qemu_host: QemuHost, sector: Sector) -> None:
    machine = started(qemu_host, sector("idle"))
    before = machine.endpoint(22)
    machine.stop(force=True)
    with pytest.raises(HypervisorRefused, match="one is stopped"):
        machine.endpoint(22)
    with socket.create_server((before.host, before.port)):
        machine.start()

        assert machine.endpoint(22).port not in (0, before.port)


def test_a_restart_keeps_its_port(qemu_host: QemuHost, sector: Sector) -> None:
    machine = started(qemu_host, sector("idle"))
    before = (machine.endpoint(22), machine.endpoint(80))
    machine.stop(force=True)
    machine.start()

    assert (machine.endpoint(22), machine.endpoint(80)) == before


def test_a_full_disk_is_told_before_a_machine_is_made(
    qemu_host: QemuHost, sector: Sector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_qemu_host, "_NEEDED_BYTES", 1 << 60)

    with pytest.raises(LabDiskFull, match=r"machine one needs \d+ MiB below .*, \d+ MiB are free"):
        qemu_host.create(sector("idle"))

    assert list(qemu_host.machines()) == []
    assert not list(_qemu_store.of_host("here").iterdir())


def test_a_profile_that_qemu_cannot_make_is_refused(qemu_host: QemuHost, sector: Sector) -> None:
    spec = sector("idle")

    with pytest.raises(HypervisorRefused, match=r"no disk 'ubd' \(they have virtio, sata, nvme, pvscsi\)"):
        qemu_host.create(replace(spec, profile=replace(spec.profile, disk="ubd")))


@pytest.mark.parametrize("chipset", ["pc", "q35"])
@pytest.mark.parametrize("disk", ["virtio", "sata", "nvme", "pvscsi"])
def test_every_disk_model_starts_with_three_disks(
    qemu_host: QemuHost, sector: Sector, tmp_path: Path, disk: str, chipset: str
) -> None:
    seed = tmp_path / "seed.img"
    seed.write_bytes(bytes(1 << 20))
    spec = sector("endless")
    hardware = replace(spec.profile, disk=disk, chipset=chipset)

    machine = started(qemu_host, replace(spec, profile=hardware, seed=seed, data_disk_mib=16))

    # What the sector writes proves that the firmware found it on that disk.
    waiting.until(lambda: b"xxx" in machine.console(), what="the sector to run", timeout_s=90)


@pytest.mark.parametrize("nic", ["e1000e", "vmxnet3"])
def test_every_card_starts(qemu_host: QemuHost, sector: Sector, nic: str) -> None:
    spec = sector("idle")

    assert started(qemu_host, replace(spec, profile=replace(spec.profile, nic=nic))).state() is MachineState.RUNNING


def test_the_script_that_reproduces_a_machine_is_shell(qemu_host: QemuHost, sector: Sector) -> None:
    machine = qemu_host.create(sector("idle"))
    script = machine.reproduce()

    subprocess.run(["sh", "-n"], input=script, text=True, check=True, timeout=60)
    assert "qemu-img create" in script
    assert str(machine.spec.image.disk) in script


def test_the_seed_may_disappear_after_the_machine_was_made(qemu_host: QemuHost, sector: Sector, tmp_path: Path) -> None:
    seed = tmp_path / "seed.img"
    seed.write_bytes(bytes(1 << 20))
    seed.chmod(0o600)
    machine = qemu_host.create(replace(sector("idle"), seed=seed))
    seed.unlink()

    machine.start()

    assert machine.state() is MachineState.RUNNING
    assert isinstance(machine, QemuMachine)
    assert machine.directory.seed.stat().st_mode & 0o777 == 0o600


def test_a_directory_without_a_mark_is_no_machine_and_is_taken_over(qemu_host: QemuHost, sector: Sector) -> None:
    left = _qemu_store.of_host("here") / "one"
    left.mkdir(parents=True)
    (left / "root.qcow2").write_bytes(b"half")

    assert list(qemu_host.machines()) == []
    assert qemu_host.create(sector("idle")).state() is MachineState.STOPPED


def test_a_damaged_mark_does_not_hide_the_other_machines(qemu_host: QemuHost, sector: Sector) -> None:
    qemu_host.create(sector("idle"))
    damaged = _qemu_store.of_host("here") / "zwei"
    damaged.mkdir()
    (damaged / "machine.json").write_text("{")

    assert [machine.name for _, machine in qemu_host.machines()] == ["one"]


def test_a_process_that_took_over_the_id_is_never_killed(qemu_host: QemuHost, sector: Sector) -> None:
    machine = qemu_host.create(sector("idle"))
    assert isinstance(machine, QemuMachine)
    mine = {"pid": os.getpid(), "started": 1}
    (machine.directory.path / "process.json").write_text(json.dumps({**mine, "keeper": mine}))

    machine.destroy()

    assert process.start_time(os.getpid()) is not None


def test_forwards_are_read_from_qemus_own_table() -> None:
    table = (
        "Hub -1 (net0):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n"
        "  TCP[HOST_FORWARD]  12       127.0.0.1 38515       10.0.2.15    22     0     0\r\n"
        "  TCP[ESTABLISHED]   13       127.0.0.1 38516       10.0.2.15    23     0     0\r\n"
    )

    assert _qemu_ports.rows(table) == [("38515", "22")]


def test_warm_copies_of_other_hardware_are_refused(qemu_host: QemuHost, sector: Sector, profile: Profile) -> None:
    spec = sector("idle")
    key = qemu_host.warm_key(spec)

    with pytest.raises(HypervisorRefused, match="other hardware"):
        qemu_host.clone_warm(key, replace(spec, profile=replace(profile, memory_mib=64)))
