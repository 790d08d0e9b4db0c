"""The Xen driver with real guests, on a real Xen that the lab makes: what the contract suite asks of every driver.

Every run takes the part that shows most for its time; the whole of it takes a quarter of an hour under emulation, and
runs where INTEROP_LAB_WHOLE_CONTRACT is set. The same tests judge any Xen host: `lab qualify`.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from lab.contracts import Channel, Hypervisor, Image, Machine, MachineSpec, MachineState, Profile, SshLogin
from lab.errors import HypervisorRefused
from lab.hypervisors import _xen_host
from lab.hypervisors._xen_host import XenHost
from lab.inventory.models import BuildSource
from lab.provisioning import images, made_host
from lab.testing.hypervisor import HypervisorContract
from tests.hypervisors.booting import BootingFixtures
from tests.hypervisors.xen_dom0 import HARDWARE

WHOLE = bool(os.environ.get("INTEROP_LAB_WHOLE_CONTRACT"))
IN_EVERY_RUN = (
    "test_the_host_says_what_it_is",
    "test_a_guest_computes_what_we_ask",
    "test_the_console_holds_what_the_guest_writes_there",
    "test_a_restored_machine_forgets_what_came_after",
    "test_a_disk_comes_and_goes",
    "test_two_guests_meet_on_a_network_and_not_on_another",
    "test_a_guest_that_powers_off_by_itself_is_stopped",
)
PVH = replace(HARDWARE, name="xen-pvh", chipset="xenpvh", memory_mib=128)

pytestmark = pytest.mark.minutes


def _part(contract: type) -> type:
    """The tests of the contract that this run takes."""
    names = [name for name, _ in inspect.getmembers(contract, inspect.isfunction) if name.startswith("test_")]
    left_out = {} if WHOLE else {name: None for name in names if name not in IN_EVERY_RUN}
    return type("PartOfHypervisorContract", (contract,), left_out)


@contextmanager
def _made(name: str, place: object) -> Iterator[XenHost]:
    """A Xen host of the lab's own making, whose machines are in that folder."""
    image = images.resolve(BuildSource(build="xen-host"), progress=lambda _: None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(place))
        made = made_host.restore(name, image, lambda _: None)
        try:
            with _xen_host.connect_to(name, made.reached()) as host:
                yield host
        finally:
            made.destroy()


class XenFixtures(BootingFixtures):
    """A host that is restored for the class."""

    boot_timeout_s = 240.0

    @pytest.fixture(scope="class")
    @classmethod
    def hypervisor(
        cls, jeos: Image, login: SshLogin, seed_disk: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[Hypervisor]:
        # The host has its own folder of state; key and seed, asked for above, come from where everybody has them.
        with _made("contract", tmp_path_factory.mktemp("state")) as host:
            yield host


class TestPv(XenFixtures, _part(HypervisorContract)):  # type: ignore[misc]
    """Paravirtual guests on Debian's Xen, under emulation."""

    hardware: Profile = HARDWARE


@pytest.mark.skipif(not WHOLE, reason="PVH under emulation takes minutes: set INTEROP_LAB_WHOLE_CONTRACT")
class TestPvh(XenFixtures, HypervisorContract):
    """Guests on the processor's virtualisation, which is emulated too."""

    hardware: Profile = PVH


@pytest.mark.skipif(not WHOLE, reason="two emulated hosts take minutes: set INTEROP_LAB_WHOLE_CONTRACT")
class TestTwoHosts(XenFixtures):
    """A PVH guest goes to another host while it runs, with its disks; or stays, when that one dies."""

    hardware: Profile = PVH

    @pytest.fixture
    def other(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[XenHost]:
        with _made("other", tmp_path_factory.mktemp("other")) as host:
            yield host

    @pytest.fixture
    def booted(
        self,
        hypervisor: XenHost,
        boot_spec: Callable[[str], MachineSpec],
        log_in: Callable[[Machine], Channel],
    ) -> Iterator[tuple[Machine, Channel]]:
        machine = hypervisor.create(boot_spec("mover"))
        try:
            machine.start()
            yield machine, log_in(machine)
        finally:
            machine.destroy()

    def test_a_guest_goes_to_another_host_with_memory_disks_and_ports(
        self,
        hypervisor: XenHost,
        other: XenHost,
        booted: tuple[Machine, Channel],
        log_in: Callable[[Machine], Channel],
    ) -> None:
        hypervisor.meet(other)
        machine, channel = booted
        marks = (
            "mkdir -p /var/tmp; echo memory >/run/mark; echo disk >/var/tmp/mark; cat /proc/sys/kernel/random/boot_id"
        )
        boot = channel.run(["sh", "-c", marks]).out
        endpoint = machine.endpoint(22)

        took = machine.migrate_live("other", with_storage=True)  # type: ignore[attr-defined]

        assert machine.place() == "other"  # type: ignore[attr-defined]
        assert machine.state() is MachineState.RUNNING
        assert machine.endpoint(22) == endpoint
        assert ([one.name for _, one in hypervisor.machines()], [one.name for _, one in other.machines()]) == (
            [],
            ["mover"],
        )
        there = log_in(machine)
        assert there.run(["cat", "/run/mark", "/var/tmp/mark"]).out.split() == ["memory", "disk"]
        assert there.run(["cat", "/proc/sys/kernel/random/boot_id"]).out == boot
        assert took.transferred_bytes > 64 << 20
        assert 0 < took.downtime_ms <= took.seconds * 1000

    def test_a_guest_stays_when_the_other_host_dies_on_the_way(
        self,
        hypervisor: XenHost,
        booted: tuple[Machine, Channel],
        log_in: Callable[[Machine], Channel],
        tmp_path_factory: pytest.TempPathFactory,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        machine, channel = booted
        boot = channel.run(["cat", "/proc/sys/kernel/random/boot_id"]).out
        with _made("doomed", tmp_path_factory.mktemp("doomed")) as doomed:
            hypervisor.meet(doomed)
            maker = doomed.link.dom0.maker
            assert isinstance(maker, made_host.MadeHost)

            def die(*_: object) -> int:
                """At the moment at which the guest stands still here and waits there."""
                maker.emulator.end()
                doomed.link.run(("true",))
                return 0

            monkeypatch.setattr("lab.hypervisors._xen_arrival.bring_disks", die)

            with pytest.raises(HypervisorRefused, match="mover could not be brought to doomed and stays"):
                machine.migrate_live("doomed", with_storage=True)  # type: ignore[attr-defined]

        assert machine.state() is MachineState.RUNNING
        assert log_in(machine).run(["cat", "/proc/sys/kernel/random/boot_id"]).out == boot
