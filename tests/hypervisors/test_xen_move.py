"""Xen machines that move while they run, before toolstacks of files that speak to each other as xl does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from lab.contracts import MachineState
from lab.errors import HypervisorRefused, NotSupported
from lab.hypervisors._xen_host import XenHost
from lab.hypervisors._xen_machine import XenMachine
from tests.hypervisors.xen_dom0 import FakeDom0


@pytest.fixture
def host(fake: FakeDom0) -> Iterator[XenHost]:
    with fake.host() as host:
        yield host


@pytest.fixture
def machine(fake: FakeDom0, host: XenHost) -> Iterator[XenMachine]:
    """PVH, that runs."""
    machine = host.create(fake.hardware(chipset="xenpvh"))
    assert isinstance(machine, XenMachine)
    machine.start()
    yield machine
    fake.mend()
    machine.destroy()


def test_a_guest_becomes_another_domain_of_its_host_and_comes_back(fake: FakeDom0, machine: XenMachine) -> None:
    before = fake.domains()["lab-one"]["domid"]
    assert (machine.place(), list(machine.destinations())) == ("fake", ["fake, second domain"])

    took = machine.migrate_live("fake, second domain", with_storage=False)

    assert (machine.place(), list(machine.destinations())) == ("fake, second domain", ["fake"])
    assert machine.state() is MachineState.RUNNING
    assert fake.domains()["lab-one"]["domid"] != before
    assert took.transferred_bytes > 100_000
    assert 0 <= took.downtime_ms <= took.seconds * 1000
    machine.migrate_live("fake", with_storage=False)
    assert machine.place() == "fake"


def test_a_receiver_that_has_no_memory_leaves_the_guest_where_it_is(fake: FakeDom0, machine: XenMachine) -> None:
    fake.fault("no-memory")

    with pytest.raises(HypervisorRefused, match=r"xl could not migrate one: .*failed to free memory"):
        machine.migrate_live("fake, second domain", with_storage=False)

    assert (machine.state(), machine.place()) == (MachineState.RUNNING, "fake")


def test_no_disk_goes_along_within_a_host(machine: XenMachine) -> None:
    with pytest.raises(NotSupported, match="both places are on fake"):
        machine.migrate_live("fake, second domain", with_storage=True)


def test_a_place_that_is_not_known_is_refused(machine: XenMachine) -> None:
    with pytest.raises(HypervisorRefused, match=r"one cannot be brought to 'moon' \(it can be brought to fake, second"):
        machine.migrate_live("moon", with_storage=False)


def test_a_paravirtual_guest_cannot_move_on_a_xen_without_shadow_paging(fake: FakeDom0, host: XenHost) -> None:
    machine = host.create(replace(fake.spec(), name="two"))
    assert isinstance(machine, XenMachine)
    try:
        machine.start()

        assert list(machine.destinations()) == []
        with pytest.raises(NotSupported, match="a PV domain has no log of its dirty pages"):
            machine.migrate_live("fake, second domain", with_storage=False)
    finally:
        machine.destroy()


@pytest.fixture
def other(tmp_path_factory: pytest.TempPathFactory, fake: FakeDom0, host: XenHost) -> Iterator[XenHost]:
    """Another host of that kind, introduced."""
    with FakeDom0(tmp_path_factory.mktemp("other")).running() as second, second.host(name="other") as other:
        # On hosts of their own both would have the same folder; here they are one machine.
        host.meet(other)
        yield other


def test_hosts_that_keep_disks_elsewhere_are_no_place_to_go(machine: XenMachine, other: XenHost) -> None:
    assert "other" not in machine.destinations()


def test_hosts_that_were_not_introduced_are_no_place_to_go(machine: XenMachine) -> None:
    assert list(machine.destinations()) == ["fake, second domain"]
