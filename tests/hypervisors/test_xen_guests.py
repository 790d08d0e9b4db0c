"""The Xen driver with real guests, on a real Xen that the lab makes: what the contract suite asks of every driver.

Every run takes the part that shows most for its time; the whole of it takes a quarter of an hour under emulation, and
runs where INTEROP_LAB_WHOLE_CONTRACT is set. The same tests judge any Xen host: `lab qualify`.
"""

from __future__ import annotations

import inspect
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from lab import waiting
from lab.contracts import (
    Channel,
    Firmware,
    Hypervisor,
    Image,
    Machine,
    MachineSpec,
    MachineState,
    Profile,
    SshLogin,
    TakesScreenshots,
)
from lab.errors import HypervisorRefused, NotSupported
from lab.hypervisors import _xen_host
from lab.hypervisors._xen_host import XenHost
from lab.hypervisors._xen_machine import XenMachine
from lab.inventory.models import BuildSource
from lab.provisioning import images, made_host
from lab.testing.hypervisor import Booted, HypervisorContract
from tests.hypervisors.booting import BootingFixtures
from tests.hypervisors.xen_dom0 import HARDWARE

WHOLE = bool(os.environ.get("INTEROP_LAB_WHOLE_CONTRACT"))
IN_EVERY_RUN = (
    "test_the_host_says_what_it_is",
    "test_a_guest_computes_what_we_ask",
    "test_the_console_holds_what_the_guest_writes_there",
    "test_a_restored_machine_forgets_what_came_after",
    "test_a_disk_comes_and_goes",
    "test_what_the_host_leaves_the_guest_reads",
    "test_what_the_guest_leaves_the_host_reads",
    "test_a_magic_key_reaches_the_kernel",
    "test_two_guests_meet_on_a_network_and_not_on_another",
    "test_a_guest_that_powers_off_by_itself_is_stopped",
)
OF_HVM = (
    "test_a_guest_shuts_down_in_order_when_asked",
    "test_a_paused_guest_stands_still_and_goes_on",
    "test_a_screenshot_is_a_picture",
    "test_an_nmi_reaches_the_processor",
    "test_a_guest_that_slept_goes_on_where_it_was",
)
HVM = replace(HARDWARE, name="xen-hvm", chipset="xenhvm", firmware=Firmware.BIOS)
PVH = replace(HARDWARE, name="xen-pvh", chipset="xenpvh", memory_mib=128)

pytestmark = pytest.mark.minutes


def _lit(picture: bytes) -> int:
    """How many bytes of a picture's pixels are not black; it is as `_picture` writes it, in one piece."""
    start = picture.index(b"IDAT")
    (length,) = struct.unpack(">I", picture[start - 4 : start])
    pixels = zlib.decompress(picture[start + 4 : start + 4 + length])
    return len(pixels) - pixels.count(0)


def _part(contract: type, *also: str) -> type:
    """The tests of the contract that this run takes, all of them unless `also` adds some to those of every run."""
    names = [name for name, _ in inspect.getmembers(contract, inspect.isfunction) if name.startswith("test_")]
    wanted = names if WHOLE and not also else (*IN_EVERY_RUN, *also)
    assert set(wanted) <= set(names)
    left_out = {name: None for name in names if name not in wanted}
    return type("PartOfHypervisorContract", (contract,), left_out)


@contextmanager
def _made(name: str, place: object, recipe: str = "xen-host") -> Iterator[XenHost]:
    """A Xen host of the lab's own making, whose machines are in that folder."""
    image = images.resolve(BuildSource(build=recipe), progress=lambda _: None)
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
    recipe = "xen-host"

    @pytest.fixture(scope="class")
    @classmethod
    def hypervisor(
        cls, jeos: Image, login: SshLogin, seed_disk: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[Hypervisor]:
        # The host has its own folder of state; key and seed, asked for above, come from where everybody has them.
        with _made("contract", tmp_path_factory.mktemp("state"), cls.recipe) as host:
            yield host


class TestPv(XenFixtures, _part(HypervisorContract)):  # type: ignore[misc]
    """Paravirtual guests on Debian's Xen, under emulation."""

    hardware: Profile = HARDWARE


@pytest.mark.skipif(not WHOLE, reason="PVH under emulation takes minutes: set INTEROP_LAB_WHOLE_CONTRACT")
class TestPvh(XenFixtures, HypervisorContract):
    """Guests on the processor's virtualisation, which is emulated too."""

    hardware: Profile = PVH


@pytest.mark.timeout(1800)
@pytest.mark.skipif(not WHOLE, reason="HVM under emulation takes minutes: set INTEROP_LAB_WHOLE_CONTRACT")
class TestHvm(XenFixtures, _part(HypervisorContract, *OF_HVM)):  # type: ignore[misc]
    """Guests with a whole PC around them, which Xen's build of QEMU emulates in the dom0."""

    hardware: Profile = HVM
    boot_timeout_s = 900.0  # the BIOS takes the kernel byte by byte from the device model
    recipe = "xen-host-hvm"

    def test_disk_and_card_are_xens_own_and_nothing_is_doubled(self, booted: Booted) -> None:
        assert booted.sh("cat /sys/hypervisor/guest_type").strip() == "HVM"
        drivers = "cd /sys/bus/xen/drivers && ls -d vbd/vbd-* vif/vif-*"
        assert booted.sh(drivers).split() == ["vbd/vbd-51712", "vbd/vbd-51744", "vbd/vbd-51952", "vif/vif-0"]
        assert booted.sh("ls /sys/block | grep -v -e loop -e ram").split() == ["xvda", "xvdc", "xvdp"]
        assert booted.sh("ls /sys/class/net | grep -v -e '^lo$'").split() == ["eth0"]

    def test_the_display_shows_what_the_kernel_writes_there(self, booted: Booted) -> None:
        machine = booted.machine
        assert isinstance(machine, TakesScreenshots)
        booted.sh("printf '\\033[2J\\033[H' >/dev/tty0")
        empty = _lit(machine.screenshot())

        booted.sh("for _ in 1 2 3 4 5 6 7 8; do echo MMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMM; done >/dev/tty0")

        waiting.until(lambda: _lit(machine.screenshot()) > empty + 1000, what="the text to be shown", timeout_s=60)


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


@pytest.mark.skipif(not WHOLE, reason="two emulated hosts take minutes: set INTEROP_LAB_WHOLE_CONTRACT")
class TestCarried(XenFixtures):
    """A PV guest, which no Xen of Debian's migrates live, sleeps, is carried to another host, and goes on there."""

    hardware: Profile = HARDWARE

    def test_a_pv_guest_that_slept_goes_on_at_another_host(
        self,
        hypervisor: XenHost,
        boot_spec: Callable[[str], MachineSpec],
        log_in: Callable[[Machine], Channel],
        tmp_path: Path,
    ) -> None:
        with _made("other", tmp_path) as other:
            hypervisor.meet(other)
            machine = hypervisor.create(boot_spec("carried"))
            assert isinstance(machine, XenMachine)
            try:
                machine.start()
                channel = log_in(machine)
                marks = "mkdir -p /var/tmp; echo memory >/run/mark; echo disk >/var/tmp/mark"
                boot = channel.run(["sh", "-c", f"{marks}; cat /proc/sys/kernel/random/boot_id"]).out
                endpoint = machine.endpoint(22)
                with pytest.raises(NotSupported, match="save it"):
                    machine.migrate_live("other", with_storage=True)
                machine.save_state()

                machine.migrate_cold("other")

                assert (machine.place(), machine.has_saved_state()) == ("other", True)
                machine.start()
                assert machine.endpoint(22) == endpoint
                there = log_in(machine)
                assert there.run(["cat", "/run/mark", "/var/tmp/mark"]).out.split() == ["memory", "disk"]
                assert there.run(["cat", "/proc/sys/kernel/random/boot_id"]).out == boot
                assert [one.name for _, one in other.machines()] == ["carried"]
                assert list(hypervisor.machines()) == []
            finally:
                machine.destroy()
