"""libvirt in system mode, whose guests are those of another user: who owns what, streams, a real guest."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab import waiting
from lab.contracts import MachineState
from lab.errors import HypervisorRefused
from lab.hypervisors import libvirt
from lab.hypervisors._libvirt_host import LibvirtHost
from lab.hypervisors._libvirt_machine import LibvirtMachine
from tests.hypervisors import libvirt_own as own
from tests.hypervisors.libvirt_system import GUESTS_USER, SystemDaemon, lacking

pytestmark = pytest.mark.skipif(bool(lacking()), reason=lacking())

Make = Callable[..., LibvirtMachine]


@pytest.fixture(scope="module")
def daemon() -> Iterator[SystemDaemon]:
    made = SystemDaemon(Path(tempfile.mkdtemp(prefix="lab-sys-")))
    try:
        made.start(of_logs="max_size = 65536\nmax_backups = 2\n")
        yield made
    finally:
        made.end()


@pytest.fixture(scope="module")
def host(daemon: SystemDaemon) -> Iterator[LibvirtHost]:
    settings = libvirt.Settings(uri=daemon.uri, folder=str(daemon.disks), accelerator="tcg")
    with libvirt.connect("system", settings) as host:
        yield host


@pytest.fixture
def make(host: LibvirtHost, tmp_path: Path) -> Iterator[Make]:
    def made(guest: str, **changes: Any) -> LibvirtMachine:
        machine = host.create(replace(own.spec_of(tmp_path, guest), **changes))
        assert isinstance(machine, LibvirtMachine)
        return machine

    yield made
    for _, machine in host.machines():
        machine.destroy()


def _owners(daemon: SystemDaemon, machine: LibvirtMachine) -> dict[str, int]:
    files = daemon.disks.glob(f"{machine.uuid}.*")
    return {path.name.removeprefix(f"{machine.uuid}."): path.stat().st_uid for path in files}


def test_a_guest_is_that_of_another_user_who_owns_its_disks_while_it_runs(daemon: SystemDaemon, make: Make) -> None:
    machine = make("idle", data_disk_mib=4)
    assert set(_owners(daemon, machine).values()) == {0}

    machine.start()

    assert machine.state() is MachineState.RUNNING
    running = _owners(daemon, machine)
    assert (running["root"], running["data"], running["console"]) == (GUESTS_USER, GUESTS_USER, 0)
    machine.stop(force=True)
    assert set(_owners(daemon, machine).values()) == {0}
    machine.start()
    assert machine.state() is MachineState.RUNNING


def test_the_end_of_one_guest_takes_the_image_from_no_other(make: Make) -> None:
    one, two = make("idle"), make("idle", name="two")
    one.start()
    two.start()

    two.stop(force=True)

    # QEMU opens the image anew for each of these.
    one.snapshot("kept")
    one.restore("kept")
    assert one.state() is MachineState.RUNNING
    one.save_state()
    one.start()
    assert one.state() is MachineState.RUNNING
    two.start()
    assert two.state() is MachineState.RUNNING


def test_a_disk_that_comes_while_a_guest_runs_is_that_users(daemon: SystemDaemon, make: Make) -> None:
    machine = make("idle")
    machine.start()

    machine.attach_disk("more", 8)

    assert _owners(daemon, machine)["plugged-more"] == GUESTS_USER


def test_the_console_comes_by_streams_and_takes_a_bounded_part_of_the_disk(daemon: SystemDaemon, make: Make) -> None:
    machine = make("endless")
    machine.start()
    oldest = daemon.disks / f"{machine.uuid}.console.1"
    waiting.until(oldest.exists, what="three parts of the console", timeout_s=120)
    first = oldest.stat().st_ino

    waiting.until(lambda: _inode(oldest) not in (0, first), what="the oldest to be thrown away", timeout_s=120)

    parts = [path.stat().st_size for path in daemon.disks.glob(f"{machine.uuid}.console*")]
    assert len(parts) <= 3
    assert sum(parts) <= 3 * 65536 + 8192
    assert set(machine.console()) == {ord("x")}
    assert len(machine.console()) > 65536
    machine.destroy()
    assert list(daemon.disks.glob(f"{machine.uuid}*")) == []


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0  # between two renames


def test_a_folder_that_guests_may_not_enter_is_told_with_what_to_do(daemon: SystemDaemon, tmp_path: Path) -> None:
    shut = daemon.folder / "shut"
    shut.mkdir(mode=0o700)
    with libvirt.connect("system", libvirt.Settings(uri=daemon.uri, folder=str(shut / "disks"))) as host:
        host.link.ask("forgetting the pool", _without_pool)
        try:
            machine = host.create(own.spec_of(tmp_path, "idle", name="three"))
            with pytest.raises(HypervisorRefused, match="Permission denied") as refused:
                machine.start()
            machine.destroy()
        finally:
            host.link.ask("forgetting the pool", _without_pool)

    assert refused.value.hint == "may the user that libvirt runs guests as enter every folder above lab_folder?"


def _without_pool(connection: Any) -> None:
    pool = connection.storagePoolLookupByName("interop-lab")
    pool.destroy()
    pool.undefine()
