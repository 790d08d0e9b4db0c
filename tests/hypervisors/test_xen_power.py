"""Xen machines and their faults: each state told, each fault with whose it is, and nobody else's domain touched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lab.contracts import Machine, MachineState
from lab.errors import Blame, HostError, HypervisorRefused, LabBusy, LabError, MachineVanished, WaitedTooLong
from lab.hypervisors._xen_host import XenHost
from lab.hypervisors._xen_machine import XenMachine
from tests.hypervisors.xen_dom0 import FakeDom0


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeDom0]:
    with (
        pytest.MonkeyPatch.context() as patch,
        FakeDom0(tmp_path_factory.mktemp("dom0")).running() as fake,
    ):
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield fake


@pytest.fixture(scope="module")
def host(running: FakeDom0) -> Iterator[XenHost]:
    with running.host() as host:
        yield host


@pytest.fixture
def fake(running: FakeDom0) -> Iterator[FakeDom0]:
    yield running
    running.mend()
    for path in (running.folder / "domains").glob("*.json"):
        path.unlink()


@pytest.fixture
def machine(fake: FakeDom0, host: XenHost) -> Iterator[XenMachine]:
    made = host.create(fake.spec())
    assert isinstance(made, XenMachine)
    yield made
    fake.mend()
    made.destroy()


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
        with pytest.raises(MachineVanished, match=f"one ended unasked: Xen has no domain {machine.uuid} any more"):
            attempt()
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
    for attempt in (lambda: machine.detach_disk("more"), lambda: machine.detach_nic("card")):
        with pytest.raises(HypervisorRefused, match=r"one has no (disk|nic) '(more|card)' that was attached"):
            attempt()


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


# ---------------------------------------------------------------------------------------------------------
# Others


def test_a_domain_of_the_same_name_that_is_not_ours_is_never_touched(fake: FakeDom0, host: XenHost) -> None:
    fake.put("lab-one")
    before = fake.domains()

    with pytest.raises(
        HypervisorRefused, match="fake has a domain 'lab-one' already, which is not the lab's; it was not touched"
    ):
        host.create(fake.spec())

    assert fake.domains() == before
    assert "one" not in [other.name for _, other in host.machines()]


def test_a_domain_that_took_the_name_later_is_never_touched(fake: FakeDom0, machine: XenMachine) -> None:
    fake.put("lab-one")
    before = fake.domains()

    assert machine.state() is MachineState.STOPPED
    with pytest.raises(HypervisorRefused, match="fake has a domain 'lab-one' that is not the lab's one; it was not"):
        machine.start()
    machine.stop(force=True)
    machine.destroy()

    assert fake.domains() == before


def test_what_another_controller_made_is_not_ours(
    fake: FakeDom0, host: XenHost, machine: XenMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "one" in [other.name for _, other in host.machines()]

    monkeypatch.setattr("lab.hypervisors._xen_store.controller", lambda: "somebody else")

    assert "one" not in [other.name for _, other in host.machines()]
    with pytest.raises(HypervisorRefused, match="a machine 'one' exists already"):
        host.create(fake.spec())


def test_a_mark_that_somebody_bent_is_passed_over(fake: FakeDom0, host: XenHost, machine: XenMachine) -> None:
    for name, content in (("a", "{"), ("b", '{"spec": 1}'), ("c", "[" * 5000), ("d", "x" * 100_000), ("e", "\0\0")):
        folder = fake.folder / "lab/machines" / name
        folder.mkdir()
        (folder / "machine.json").write_text(content)

    assert [other.name for _, other in host.machines()] == ["one"]


def test_guests_have_addresses_of_their_own_until_none_is_left(fake: FakeDom0, host: XenHost) -> None:
    made: list[Machine] = [host.create(fake.spec(f"m{number}")) for number in range(3)]
    try:
        with pytest.raises(LabBusy, match="fake: all 3 addresses for guests are taken"):
            host.create(fake.spec("m3"))
        made[1].destroy()
        made[1] = host.create(fake.spec("m4"))
        made[1].start()
        assert list(made[1].addresses()) == ["127.0.0.8"]
    finally:
        for machine in made:
            machine.destroy()


# ---------------------------------------------------------------------------------------------------------
# Faults


@pytest.mark.parametrize(
    ("fault", "kind", "blame", "said"),
    [
        ("no-memory", LabBusy, Blame.LAB, "fake: no memory is left for one: .*failed to free memory"),
        ("locked", LabBusy, Blame.LAB, "fake: a disk of one is locked: .*cannot be mounted now"),
        ("xenstored-dead", HostError, Blame.LAB, "fake: xl list does not work: .*cannot open xenstore"),
        ("nonsense", HostError, Blame.LAB, "fake: xl list answers what no xl says"),
    ],
)
def test_a_fault_tells_whose_it_is_and_what_next(
    fake: FakeDom0, machine: XenMachine, fault: str, kind: type[LabError], blame: Blame, said: str
) -> None:
    fake.fault(fault)

    with pytest.raises(kind, match=said) as caught:
        machine.start()

    assert caught.value.blame is blame
    assert caught.value.hint
    fake.mend()
    assert machine.state() is MachineState.STOPPED


def test_a_toolstack_that_hangs_is_given_up(
    fake: FakeDom0, machine: XenMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.hypervisors._xen_power.START_S", 1.5)
    fake.fault("hang-create")

    with pytest.raises(HypervisorRefused, match="fake: 'start a domain' did not end within 2 s") as caught:
        machine.start()

    assert caught.value.blame is Blame.HYPERVISOR
    assert "xenstored" in caught.value.hint
    assert machine.state() is MachineState.STOPPED


def test_a_dom0_without_space_is_the_hosts_fault(fake: FakeDom0, machine: XenMachine) -> None:
    machine.start()
    fake.fault("disk-full")

    with pytest.raises(HostError, match="fake: no space is left in the dom0 while save of one"):
        machine.save_state()

    assert machine.state() is MachineState.RUNNING
    assert not machine.has_saved_state()


@pytest.mark.parametrize(
    ("fault", "content", "said"),
    [
        ("no-version", "", "fake: xl info tells no version of Xen"),
        ("minor", "2", r"fake has Xen 4\.2\.7; the lab speaks to 4\.4 and later"),
        ("xenstored-dead", "", "fake: xl info does not work: .*cannot open xenstore"),
    ],
)
def test_a_toolstack_that_cannot_be_used_is_told_at_once(fake: FakeDom0, fault: str, content: str, said: str) -> None:
    fake.fault(fault, content)

    with pytest.raises(HostError, match=said), fake.host():
        pass


def test_a_toolstack_that_is_newer_than_known_is_used_and_said_so(fake: FakeDom0) -> None:
    fake.fault("minor", "33")

    with fake.host() as host:
        assert host.facts().version == "4.33.7"
        assert host.facts().details["toolstack"].startswith("newer than 4.20")


def test_an_old_toolstack_takes_no_snapshots_and_makes_no_pvh(fake: FakeDom0) -> None:
    fake.fault("minor", "4")

    with fake.host() as host:
        refused: Callable[[], Machine] = lambda: host.create(fake.hardware(chipset="xenpvh"))  # noqa: E731
        with pytest.raises(HypervisorRefused, match=r"Xen before 4\.10 has no PVH domains"):
            refused()
        assert any("xl before 4.5" in reason for reason in host.limits().values())
        machine = host.create(fake.spec())
        try:
            machine.start()
            assert fake.domains()["lab-one"]["config"]["builder"] == "generic"
        finally:
            machine.destroy()


def test_a_dom0_without_its_bridge_is_told_what_it_lacks(fake: FakeDom0) -> None:
    with (
        pytest.raises(HostError, match="fake: the dom0 lacks what the lab needs: no bridge br7"),
        fake.host(like=replace(fake.dom0, bridge="br7")),
    ):
        pass
