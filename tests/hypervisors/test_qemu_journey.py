"""Live migration between two QEMU processes of a guest that works: it speaks to another guest all the while."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from itertools import count
from typing import Any

import pytest

from lab.contracts import Channel, Firmware, Hypervisor, Machine, MachineSpec, MachineState, Profile
from lab.errors import HypervisorRefused
from lab.hypervisors import _qemu_mirror, qemu
from lab.hypervisors._qemu_machine import QemuMachine
from lab.testing.hypervisor import Booted
from tests.hypervisors import traveller
from tests.hypervisors.booting import BootingFixtures
from tests.hypervisors.traveller import Heard, Traveller, judged

MACS = ("52:54:00:c0:78:01", "52:54:00:c0:78:02")


class Pair:
    """The guest that is moved, and the one that it speaks to."""

    def __init__(self, mover: Booted, partner: Booted) -> None:
        self.mover, self.partner = mover, partner

    @property
    def machine(self) -> QemuMachine:
        machine = self.mover.machine
        assert isinstance(machine, QemuMachine)
        return machine

    def set_out(self) -> Traveller:
        return Traveller(self.mover.sh, self.partner.sh)


@pytest.mark.minutes
@pytest.mark.timeout(900)
class TestJourney(BootingFixtures):
    """One pair of guests for all; each test moves the first of them from wherever it is."""

    hardware: Profile = Profile("plain", Firmware.BIOS, "pc", "virtio", "virtio", 1, 128)
    boot_timeout_s = 400.0

    @classmethod
    def connect(cls) -> AbstractContextManager[Hypervisor]:
        return qemu.connect("journey", qemu.Settings(accelerator="tcg"))

    @pytest.fixture(scope="class")
    @classmethod
    def pair(
        cls,
        hypervisor: Hypervisor,
        boot_spec: Callable[[str], MachineSpec],
        log_in: Callable[[Machine], Channel],
    ) -> Pair:
        machines = [hypervisor.create(boot_spec(name)) for name in ("mover", "partner")]
        for machine in machines:
            machine.start()
        guests = [Booted(one, log_in(one), log_in, partial(hypervisor.create, one.spec)) for one in machines]
        for number, guest, mac, where in zip(count(1), guests, MACS, (traveller.THERE, traveller.HERE), strict=False):
            sharing: Any = guest.machine
            sharing.attach_shared_nic(f"way-{number}", mac, traveller.NETWORK)
            traveller.address(guest.sh, mac, where)
        return Pair(*guests)

    @pytest.mark.parametrize("with_storage", [False, True], ids=["shared-disks", "with-disks"])
    def test_a_guest_moves_there_and_back_and_its_connection_holds(
        self, pair: Pair, record_property: Callable[[str, object], None], with_storage: bool
    ) -> None:
        machine = pair.machine
        journey = pair.set_out()
        began = machine.place()

        for _ in range(2):
            (destination,) = machine.destinations()
            took = machine.migrate_live(destination, with_storage=with_storage)
            assert machine.place() == destination
            assert took.transferred_bytes > traveller.MARKER_MIB << 20
            pair.mover.reconnect()
            journey.goes_on()

        assert machine.place() == began
        assert journey.arrived(record_property).lines > 0

    def test_a_move_that_is_broken_off_is_not_noticed_in_the_guest(
        self, pair: Pair, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
    ) -> None:
        machine = pair.machine
        journey, place = pair.set_out(), machine.place()
        monkeypatch.setattr(_qemu_mirror, "is_level", lambda *_: False)

        with pytest.raises(HypervisorRefused, match="the migration did not end within 3 s"):
            machine.migrate_live(machine.destinations()[0], with_storage=True, timeout_s=3.0)

        assert (machine.place(), machine.state()) == (place, MachineState.RUNNING)
        journey.arrived(record_property)

    def test_a_destination_that_is_killed_leaves_the_guest_at_work(
        self, pair: Pair, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
    ) -> None:
        machine = pair.machine
        journey, place = pair.set_out(), machine.place()
        begun = _qemu_mirror.begin

        def dies(*given: Any) -> None:
            begun(*given)
            os.kill(given[1].running().pid, signal.SIGKILL)

        monkeypatch.setattr(_qemu_mirror, "begin", dies)

        with pytest.raises(HypervisorRefused):
            machine.migrate_live(machine.destinations()[0], with_storage=True)

        assert (machine.place(), machine.state()) == (place, MachineState.RUNNING)
        journey.arrived(record_property)


def test_a_clock_that_goes_back_is_seen() -> None:
    with pytest.raises(AssertionError, match="time of the day went from 10 back to 9"):
        judged([Heard(1, 1, 1, 10), Heard(2, 2, 2, 9)])
    with pytest.raises(AssertionError, match="time since boot went from 5 back to 2"):
        judged([Heard(1, 1, 5, 10), Heard(2, 2, 2, 11)])


def test_the_longest_silence_and_the_largest_step_of_the_clock_are_measured() -> None:
    told = judged([Heard(1, 1, 1, 10), Heard(2, 2, 2, 11), Heard(7, 3, 4, 16), Heard(8, 4, 5, 17)])

    assert (told.longest_gap_s, told.clock_jump_s, told.lines) == (5, 3, 4)
