"""Warm copies on disk: whole or not believed; with real QEMU and guests of one sector."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from lab import locations, waiting
from lab.contracts import MachineSpec, MachineState
from lab.errors import HypervisorRefused, LabDiskFull
from lab.hypervisors import _qemu_warm as warm
from lab.hypervisors._qemu_host import QemuHost

Sector = Callable[..., MachineSpec]


@pytest.fixture
def saved(qemu_host: QemuHost, sector: Sector) -> str:
    spec = sector("endless", "source")
    machine = qemu_host.create(spec)
    machine.start()
    waiting.until(lambda: machine.console(), what="the sector to run", timeout_s=60)
    key = qemu_host.warm_key(spec)
    qemu_host.save_warm(key, machine, b"who it is")
    machine.destroy()
    return key


def home(key: str) -> Path:
    return locations.cache() / "warm" / "qemu" / key


def test_a_clone_runs_without_booting(qemu_host: QemuHost, sector: Sector, saved: str) -> None:
    clone = qemu_host.clone_warm(saved, sector("endless", "clone"))

    waiting.until(lambda: len(clone.console()) > 1000, what="the sector to go on", timeout_s=60)
    assert clone.state() is MachineState.RUNNING
    assert qemu_host.warm_identity(saved) == b"who it is"


def test_a_clone_boots_again_after_its_copy_was_forgotten(qemu_host: QemuHost, sector: Sector, saved: str) -> None:
    clone = qemu_host.clone_warm(saved, sector("endless", "clone"))
    qemu_host.forget_warm(saved)
    clone.stop(force=True)
    seen = len(clone.console())

    clone.start()

    waiting.until(lambda: len(clone.console()) > seen, what="the sector to run again", timeout_s=60)


@pytest.mark.parametrize("file", ["state", "root.qcow2", "identity", "manifest.json"])
def test_a_copy_that_lacks_a_file_or_a_byte_is_not_believed(
    qemu_host: QemuHost, sector: Sector, saved: str, file: str
) -> None:
    path = home(saved) / file
    path.write_bytes(path.read_bytes()[:-1])
    assert not qemu_host.has_warm(saved)
    path.unlink()
    assert not qemu_host.has_warm(saved)

    with pytest.raises(HypervisorRefused, match=r"no warm copy|damaged"):
        qemu_host.clone_warm(saved, sector("endless", "clone"))
    assert list(qemu_host.machines()) == []


def test_a_flipped_byte_of_the_memory_is_found(qemu_host: QemuHost, sector: Sector, saved: str) -> None:
    state = home(saved) / "state"
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 0x01
    state.write_bytes(content)

    with pytest.raises(HypervisorRefused, match=f"the warm copy {saved[:12]} is unusable"):
        qemu_host.clone_warm(saved, sector("endless", "clone"))
    assert list(qemu_host.machines()) == []


def test_a_state_that_qemu_cannot_read_is_refused(qemu_host: QemuHost, sector: Sector, saved: str) -> None:
    state = home(saved) / "state"
    state.write_bytes(b"\xff" * state.stat().st_size)

    with pytest.raises(HypervisorRefused, match="unusable"):
        qemu_host.clone_warm(saved, sector("endless", "clone"))
    assert list(qemu_host.machines()) == []


def test_two_savers_of_one_key_both_succeed(qemu_host: QemuHost, sector: Sector) -> None:
    machines = [qemu_host.create(sector("endless", name)) for name in ("a", "b")]
    for machine in machines:
        machine.start()
    key = qemu_host.warm_key(machines[0].spec)

    with ThreadPoolExecutor(2) as both:
        for done in [both.submit(qemu_host.save_warm, key, machine, b"same") for machine in machines]:
            done.result()

    assert qemu_host.has_warm(key)
    assert [path.name for path in home(key).parent.iterdir()] == [key]


def test_a_save_that_is_killed_leaves_nothing_to_believe(qemu_host: QemuHost, sector: Sector, tmp_path: Path) -> None:
    spec = sector("endless", "source")
    machine = qemu_host.create(spec)
    machine.start()
    key = qemu_host.warm_key(spec)
    script = (
        "import os, signal, sys\nfrom lab.hypervisors import qemu, _qemu_warm as warm\n"
        "warm._seal = lambda draft: os.kill(os.getpid(), signal.SIGKILL)\n"
        "with qemu.connect('here', qemu.Settings(accelerator='tcg')) as host:\n"
        "    ((_, machine),) = host.machines()\n"
        "    host.save_warm(sys.argv[1], machine, b'x')\n"
    )

    killed = subprocess.run([sys.executable, "-c", script, key], timeout=120, check=False)

    assert killed.returncode == -signal.SIGKILL
    assert not qemu_host.has_warm(key)
    qemu_host.save_warm(key, machine, b"whole")
    assert qemu_host.warm_identity(key) == b"whole"


def test_the_source_goes_on_when_the_copy_finds_no_space(
    qemu_host: QemuHost, sector: Sector, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = qemu_host.create(sector("endless", "source"))
    machine.start()
    key = qemu_host.warm_key(machine.spec)

    def full(draft: Path) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(warm, "_seal", full)
    with pytest.raises(LabDiskFull, match="no space left on this machine while saving a warm copy of source"):
        qemu_host.save_warm(key, machine, b"x")

    assert machine.state() is MachineState.RUNNING
    assert not qemu_host.has_warm(key)
    assert list(home(key).parent.iterdir()) == []


def test_a_stopped_machine_has_no_memory_to_save(qemu_host: QemuHost, sector: Sector) -> None:
    machine = qemu_host.create(sector("endless", "source"))

    with pytest.raises(HypervisorRefused, match="source does not run, so there is no memory to save"):
        qemu_host.save_warm(qemu_host.warm_key(machine.spec), machine, b"x")


def test_nvme_cannot_be_saved_and_says_so(qemu_host: QemuHost, sector: Sector) -> None:
    spec = sector("endless", "source")
    spec = replace(spec, profile=replace(spec.profile, disk="nvme"))
    machine = qemu_host.create(spec)
    machine.start()

    with pytest.raises(HypervisorRefused, match="QEMU cannot save the state of an NVMe controller"):
        qemu_host.save_warm(qemu_host.warm_key(spec), machine, b"x")
    assert machine.state() is MachineState.RUNNING


@pytest.mark.parametrize("key", ["", "../../etc", "A" * 64, "0" * 63])
def test_a_key_cannot_be_a_path(qemu_host: QemuHost, key: str) -> None:
    with pytest.raises(HypervisorRefused, match="is not a key of a warm copy"):
        qemu_host.forget_warm(key)


def test_a_clone_on_sata_outlives_the_machine_that_was_saved(
    qemu_host: QemuHost, sector: Sector, tmp_path: Path
) -> None:
    seed = tmp_path / "seed.raw"
    seed.write_bytes(bytes(1 << 20))
    spec = sector("endless", "source")
    spec = replace(spec, seed=seed, profile=replace(spec.profile, chipset="q35", disk="sata"))
    source = qemu_host.create(spec)
    source.start()
    waiting.until(lambda: source.console(), what="the sector to run", timeout_s=60)
    key = qemu_host.warm_key(spec)
    qemu_host.save_warm(key, source, b"")
    source.destroy()

    clone = qemu_host.clone_warm(key, replace(spec, name="clone"))

    waiting.until(lambda: len(clone.console()) > 1000, what="the sector to go on", timeout_s=60)
