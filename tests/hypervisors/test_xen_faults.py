"""Faults of a Xen host, each with whose it is and what next; and nobody else's domain is ever touched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from lab.contracts import Machine, MachineState
from lab.errors import Blame, HostError, HypervisorRefused, LabBusy, LabError
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


def test_a_machine_that_was_destroyed_does_nothing_to_the_next_of_its_name(
    fake: FakeDom0, host: XenHost, machine: XenMachine
) -> None:
    machine.destroy()
    other = host.create(fake.spec())
    try:
        other.start()

        machine.destroy()
        machine.stop(force=True)

        assert machine.state() is MachineState.GONE
        with pytest.raises(HypervisorRefused, match="machine 'one' is gone: it was destroyed"):
            machine.start()
        assert other.state() is MachineState.RUNNING
        assert other.console()
    finally:
        other.destroy()


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
