"""Xen machines before a toolstack of files: each state is told, and what came and went is there or not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.contracts import MachineState
from lab.errors import HypervisorRefused, MachineVanished, WaitedTooLong
from lab.hypervisors._xen_host import XenHost
from lab.hypervisors._xen_machine import XenMachine
from tests.hypervisors import xen_dom0
from tests.hypervisors.xen_dom0 import FakeDom0


@pytest.fixture(scope="module")
def host(running: FakeDom0) -> Iterator[XenHost]:
    with running.host() as host:
        yield host


@pytest.fixture
def machine(fake: FakeDom0, host: XenHost) -> Iterator[XenMachine]:
    with xen_dom0.made(fake, host) as machine:
        yield machine


def _dead(fake: FakeDom0, name: str = "lab-one") -> None:
    fake.put(name, flags="---s--")


# ---------------------------------------------------------------------------------------------------------
# States


def test_a_machine_runs_pauses_goes_on_and_ends(fake: FakeDom0, machine: XenMachine) -> None:
    machine.start()
    machine.start()
    assert machine.state() is MachineState.RUNNING
    machine.pause()
    machine.pause()
    assert machine.state() is MachineState.PAUSED
    with pytest.raises(HypervisorRefused, match="one is paused"):
        machine.start()
    machine.resume()
    machine.resume()
    assert machine.state() is MachineState.RUNNING
    machine.stop()
    assert machine.state() is MachineState.STOPPED
    assert fake.domains() == {}
    with pytest.raises(HypervisorRefused, match="one is stopped"):
        machine.pause()


def test_what_is_started_has_the_hardware_and_the_address_that_were_asked_for(
    fake: FakeDom0, machine: XenMachine
) -> None:
    machine.start()

    config = fake.domains()["lab-one"]["config"]
    lab = fake.folder / "lab"
    assert (config["type"], config["vcpus"], config["maxvcpus"]) == ("pv", 1, 2)
    assert (config["memory"], config["maxmem"]) == (192, 320)
    assert config["disk"] == [
        f"format=raw,vdev=xvda,access=rw,target={lab}/machines/one/root.raw",
        f"format=raw,vdev=xvdb,access=ro,target={lab}/machines/one/seed.raw",
        f"format=raw,vdev=xvdc,access=rw,target={lab}/machines/one/data.raw",
    ]
    assert config["extra"] == "root=/dev/xvda rw console=hvc0 lab.ip=127.0.0.7/8,127.0.0.1 quiet"
    spec = machine.spec
    assert Path(config["kernel"]).read_bytes() == (spec.image.kernel or Path()).read_bytes()
    assert Path(config["ramdisk"]).read_bytes() == (spec.image.initrd or Path()).read_bytes()
    assert (lab / "machines/one/root.raw").read_bytes() == spec.image.disk.read_bytes()
    assert (lab / "machines/one/seed.raw").read_bytes() == (spec.seed or Path()).read_bytes()
    assert (lab / "machines/one/seed.raw").stat().st_mode & 0o077 == 0
    assert machine.addresses() == ("127.0.0.7",)
    assert f"/vm/{machine.uuid}/interop-lab run host/guest/profile" in (fake.folder / "xenstore").read_text()


def test_a_guest_that_powered_off_is_stopped_and_starts_again(fake: FakeDom0, machine: XenMachine) -> None:
    machine.start()
    _dead(fake)

    assert machine.state() is MachineState.STOPPED
    assert list(machine.addresses()) == []
    machine.start()
    assert machine.state() is MachineState.RUNNING
    assert machine.console().count(b"Linux version") == 2


def test_a_guest_that_panicked_has_crashed(fake: FakeDom0, machine: XenMachine) -> None:
    machine.start()
    fake.put("lab-one", flags="---sc-")

    assert machine.state() is MachineState.CRASHED
    with pytest.raises(HypervisorRefused, match="one is crashed"):
        machine.endpoint(22)
    machine.stop(force=True)
    assert machine.state() is MachineState.STOPPED


def test_a_domain_that_somebody_destroyed_has_vanished(fake: FakeDom0, machine: XenMachine) -> None:
    machine.start()
    fake.kill("lab-one")

    assert machine.state() is MachineState.GONE
    for attempt in (machine.stop, machine.pause, lambda: machine.endpoint(22)):
        with pytest.raises(
            MachineVanished, match=f"one ended unasked: Xen has no domain {machine.uuid} any more"
        ) as said:
            attempt()
        assert "the last that Xen logged: (XEN) d1v0 Triple fault" in said.value.what
    machine.stop(force=True)
    assert machine.state() is MachineState.STOPPED


def test_a_guest_that_reboots_is_not_gone_while_it_has_no_domain(fake: FakeDom0, machine: XenMachine) -> None:
    machine.start()
    fake.kill("lab-one")
    log = fake.folder / "log/xl-lab-one.log"
    log.write_text(
        "Domain 1 has shut down, reason code 1 0x1\nAction for shutdown reason code 1 is restart\nDone. Rebooting now\n"
    )

    assert machine.state() is MachineState.RUNNING
    assert machine.resets() == 1
    with pytest.raises(HypervisorRefused, match="one is rebooting: it has no domain right now"):
        machine.pause()


def test_a_guest_that_ignores_the_request_is_told(fake: FakeDom0, machine: XenMachine) -> None:
    machine.start()
    fake.fault("ignores-shutdown")

    with pytest.raises(WaitedTooLong, match="for one to shut down after xl shutdown"):
        machine.stop(timeout_s=0.5)

    assert machine.state() is MachineState.RUNNING


def test_a_saved_machine_goes_on_and_a_discarded_one_boots(fake: FakeDom0, machine: XenMachine) -> None:
    machine.start()
    machine.save_state()
    assert (machine.state(), machine.has_saved_state()) == (MachineState.STOPPED, True)

    machine.start()

    assert (machine.state(), machine.has_saved_state()) == (MachineState.RUNNING, False)
    assert [call.split()[0] for call in fake.calls() if call.split()[0] in ("create", "restore")][-1] == "restore"
    machine.save_state()
    machine.discard_saved_state()
    machine.start()
    assert [call.split()[0] for call in fake.calls() if call.split()[0] in ("create", "restore")][-1] == "create"


def test_a_snapshot_brings_disk_and_memory_back(fake: FakeDom0, machine: XenMachine) -> None:
    disk = fake.folder / "lab/machines/one/root.raw"
    machine.start()
    before = disk.read_bytes()
    machine.snapshot("../x y.draft")
    assert machine.state() is MachineState.RUNNING
    disk.write_bytes(b"late")

    machine.restore("../x y.draft")

    assert disk.read_bytes() == before
    assert machine.state() is MachineState.RUNNING
    assert list(machine.snapshots()) == ["../x y.draft"]
    with pytest.raises(HypervisorRefused, match=r"a snapshot '../x y\.draft' of one exists already"):
        machine.snapshot("../x y.draft")
    machine.delete_snapshot("../x y.draft")
    with pytest.raises(HypervisorRefused, match=r"there is no snapshot '../x y\.draft' of one"):
        machine.restore("../x y.draft")


def test_what_was_plugged_is_there_after_a_power_cut(fake: FakeDom0, machine: XenMachine) -> None:
    machine.start()
    machine.attach_disk("more", 8)
    machine.attach_nic("card", "52:54:00:C0:FF:EE")
    machine.stop(force=True)

    machine.start()

    found = fake.domains()["lab-one"]["config"]
    assert "vdev=xvde" in found["disk"][-1]
    assert found["vif"][-1] == "mac=52:54:00:c0:ff:ee,bridge=xenbr0"
    with pytest.raises(HypervisorRefused, match="a snapshot cannot be taken while disks are plugged: more"):
        machine.snapshot("torn")
    with pytest.raises(HypervisorRefused, match="one has a disk 'more' already"):
        machine.attach_disk("more", 8)
    machine.detach_disk("more")
    machine.detach_nic("card")
    gone: tuple[Callable[[], None], ...] = (lambda: machine.detach_disk("more"), lambda: machine.detach_nic("card"))
    for attempt in gone:
        with pytest.raises(HypervisorRefused, match=r"one has no (disk|nic) '(more|card)' that was attached"):
            attempt()


def test_a_card_joins_the_bridge_of_its_network(fake: FakeDom0, machine: XenMachine) -> None:
    machine.start()

    machine.attach_shared_nic("card", "52:54:00:c0:ff:ee", "quiet")

    assert re.fullmatch(r"mac=52:54:00:c0:ff:ee,bridge=lab[0-9a-f]{12}", fake.domains()["lab-one"]["cards"][-1])


@pytest.mark.parametrize("name", ["", "a b", "../x", "x" * 21, "a\nb"])
def test_a_name_that_could_be_a_path_is_no_disk(machine: XenMachine, name: str) -> None:
    with pytest.raises(HypervisorRefused, match="cannot be the name of a disk"):
        machine.attach_disk(name, 8)


def test_memory_and_processors_have_limits(fake: FakeDom0, machine: XenMachine) -> None:
    machine.start()
    machine.set_vcpus(2)
    assert machine.vcpus() == 2
    machine.set_vcpus(1)
    machine.attach_memory("module", 128)
    assert machine.balloon_mib() == 320

    with pytest.raises(HypervisorRefused, match="one can have 1 to 2 processors, not 3"):
        machine.set_vcpus(3)
    with pytest.raises(HypervisorRefused, match="one can have 320 MiB, and 384 were asked for"):
        machine.attach_memory("beyond", 64)

    machine.detach_memory("module")
    assert machine.balloon_mib() == 192
    with pytest.raises(HypervisorRefused, match="one has no memory 'module'"):
        machine.detach_memory("module")


def test_an_endless_console_keeps_its_ends(fake: FakeDom0, machine: XenMachine) -> None:
    log = fake.folder / "log/console/guest-lab-one.log"
    log.write_bytes(b"first\n" + b"x" * (5 << 20) + b"\nlast")

    said = machine.console()

    assert said.startswith(b"first\n")
    assert said.endswith(b"\nlast")
    assert len(said) < 3 << 20
    assert b"bytes of the console are not kept]" in said


def test_where_the_kernel_makes_overlays_no_disk_is_copied(fake: FakeDom0) -> None:
    fake.fault("overlays")
    with fake.host() as host:
        machine = host.create(fake.spec("three"))
        assert isinstance(machine, XenMachine)
        try:
            folder = fake.folder / "lab/machines/three"
            assert not (folder / "root.raw").exists()
            assert (folder / "root.cow").stat().st_blocks == 0
            machine.start()
            device = f"lab-{machine.uuid}"
            assert f"target=/dev/mapper/{device}" in fake.domains()["lab-three"]["config"]["disk"][0]
            table = (fake.folder / "overlays").read_text().splitlines()[-1]
            assert table == f"{device} 0 2048 snapshot /dev/loop7 /dev/loop7 P 8"
            (folder / "root.cow").write_bytes(b"early")
            machine.snapshot("one")
            (folder / "root.cow").write_bytes(b"late")
            machine.restore("one")
            assert (folder / "root.cow").read_bytes() == b"early"
        finally:
            machine.destroy()
        assert (fake.folder / "overlays").read_text().splitlines()[-1] == f"{device} removed"
