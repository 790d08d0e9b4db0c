"""The contract suite for machines that sleep, move while they run, and meet others on a network."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, cast

import pytest

from lab import waiting
from lab.contracts import (
    Capability,
    Channel,
    HotplugsNics,
    Hypervisor,
    Machine,
    MachineSpec,
    MachineState,
    MigratesCold,
    MigratesLive,
    SavesState,
    SharesNetworks,
)
from lab.errors import HypervisorRefused, NotSupported
from lab.testing.contract import Booted, HostRefuses, capable, proves

_SEEN_S = 60.0  # for a slow guest to notice what was done to it
_WRITER = """
i=0; while ! test -e /run/{token}; do
  i=$((i + 1)); echo $i >>/var/tmp/{token}; sync; echo {token} $i. >/dev/console
done; touch /run/{token}-ended
"""


class _Writer:
    """A program in the guest that writes to disk and console without a break, and can prove that it lost nothing."""

    def __init__(self, booted: Booted) -> None:
        self._booted, self._token = booted, secrets.token_hex(8)
        # The kernel's own lines would come between, in the middle of ours.
        booted.sh("dmesg -n 1 2>/dev/null || true")
        booted.sh(f"({_WRITER.format(token=self._token)}) </dev/null >/dev/null 2>&1 &")
        self.goes_on()

    def _on_console(self) -> list[int]:
        mark = self._token.encode() + b" "
        said = (line.partition(mark)[2] for line in self._booted.machine.console().splitlines() if mark in line)
        return [int(number[:-1]) for number in said if number.endswith(b".")]

    def goes_on(self) -> None:
        before = len(self._on_console())
        waiting.until(lambda: len(self._on_console()) > before + 2, what="the guest to write", timeout_s=_SEEN_S)

    def end(self) -> None:
        """Stop it and compare: every number is on the console and on the disk, once and in order."""
        token = self._token
        self._booted.sh(f"touch /run/{token}; while ! test -e /run/{token}-ended; do sleep 1; done")
        written = [int(line) for line in self._booted.sh(f"cat /var/tmp/{token}; rm /var/tmp/{token}").split()]
        assert written == list(range(1, len(written) + 1)), "the disk lost something, or has it twice"
        waiting.until(lambda: written[-1] in self._on_console(), what="the last line on the console", timeout_s=_SEEN_S)
        assert self._on_console() == written, "the console lost something, or has it twice"


class MovementContract:
    """Behaviour tests of machines that are somewhere else in time, in space, or in company."""

    # -----------------------------------------------------------------------------------------------------
    # Sleep

    @pytest.fixture
    def sleeper(self, hypervisor: Hypervisor, booted: Booted) -> Iterator[SavesState]:
        machine: SavesState = capable(hypervisor, booted.machine, Capability.SAVED_STATE)
        yield machine
        machine.discard_saved_state()

    def _sleep(self, machine: SavesState) -> None:
        try:
            machine.save_state()
        except NotSupported as reason:
            raise HostRefuses(reason.what) from reason

    @proves(Capability.SAVED_STATE)
    def test_a_guest_that_slept_goes_on_where_it_was(self, booted: Booted, sleeper: SavesState) -> None:
        token, boot = secrets.token_hex(8), booted.boot_id()
        assert not sleeper.has_saved_state()
        booted.sh(f"echo {token} >/run/contract-slept; echo {token} >/var/tmp/contract-slept")  # without sync

        self._sleep(sleeper)

        assert booted.machine.state() is MachineState.STOPPED
        assert sleeper.has_saved_state()
        with pytest.raises(HypervisorRefused):
            booted.machine.endpoint(22)
        booted.machine.start()
        booted.reconnect()
        assert booted.machine.state() is MachineState.RUNNING
        assert booted.boot_id() == boot
        assert booted.sh("cat /run/contract-slept /var/tmp/contract-slept").split() == [token, token]
        assert not sleeper.has_saved_state()

    @proves(Capability.SAVED_STATE)
    def test_a_guest_whose_sleep_was_discarded_boots(self, booted: Booted, sleeper: SavesState) -> None:
        token, boot = secrets.token_hex(8), booted.boot_id()
        booted.sh(f"echo {token} >/var/tmp/contract-discarded; sync")
        self._sleep(sleeper)

        sleeper.discard_saved_state()
        sleeper.discard_saved_state()

        assert not sleeper.has_saved_state()
        booted.machine.start()
        booted.reconnect()
        assert booted.boot_id() != boot
        assert booted.sh("cat /var/tmp/contract-discarded") == token

    # -----------------------------------------------------------------------------------------------------
    # Live migration

    @proves(Capability.LIVE_MIGRATION)
    def test_a_guest_that_writes_does_not_notice_that_it_moves(self, hypervisor: Hypervisor, booted: Booted) -> None:
        _move(hypervisor, booted, with_storage=False)

    @proves(Capability.LIVE_MIGRATION)
    def test_a_guest_that_writes_does_not_notice_that_it_moves_with_its_disks(
        self, hypervisor: Hypervisor, booted: Booted
    ) -> None:
        _move(hypervisor, booted, with_storage=True)

    @proves(Capability.LIVE_MIGRATION)
    def test_a_place_that_is_not_there_is_refused_and_the_guest_stays(
        self, hypervisor: Hypervisor, booted: Booted
    ) -> None:
        machine: MigratesLive = capable(hypervisor, booted.machine, Capability.LIVE_MIGRATION)
        boot, place = booted.boot_id(), machine.place()

        with pytest.raises((HypervisorRefused, NotSupported)):
            machine.migrate_live("nowhere-at-all", with_storage=False)

        assert machine.place() == place
        assert booted.boot_id() == boot

    # -----------------------------------------------------------------------------------------------------
    # Cold migration

    @pytest.fixture
    def carried(self, hypervisor: Hypervisor, booted: Booted) -> MigratesCold:
        return cast(MigratesCold, capable(hypervisor, booted.machine, Capability.COLD_MIGRATION))

    @proves(Capability.COLD_MIGRATION)
    def test_a_guest_that_slept_goes_on_at_another_place(
        self, hypervisor: Hypervisor, booted: Booted, carried: MigratesCold
    ) -> None:
        sleeper: SavesState = capable(hypervisor, booted.machine, Capability.SAVED_STATE)
        token, boot, endpoint = secrets.token_hex(8), booted.boot_id(), booted.machine.endpoint(22)
        booted.sh(f"echo {token} >/run/contract-cold; echo {token} >/var/tmp/contract-cold")  # without sync
        assert not list(carried.cold_destinations()), "a machine that runs has places to be carried to"
        self._sleep(sleeper)

        place = _carry(booted, carried)

        assert sleeper.has_saved_state()
        booted.machine.start()
        assert booted.machine.endpoint(22) == endpoint
        booted.reconnect()
        assert carried.place() == place
        assert booted.boot_id() == boot
        assert booted.sh("cat /run/contract-cold /var/tmp/contract-cold").split() == [token, token]

    @proves(Capability.COLD_MIGRATION)
    def test_a_machine_that_is_off_boots_at_another_place(self, booted: Booted, carried: MigratesCold) -> None:
        token, boot = secrets.token_hex(8), booted.boot_id()
        booted.sh(f"echo {token} >/var/tmp/contract-carried")
        booted.machine.stop(timeout_s=120)

        _carry(booted, carried)

        booted.machine.start()
        booted.reconnect()
        assert booted.boot_id() != boot
        assert booted.sh("cat /var/tmp/contract-carried") == token

    @proves(Capability.COLD_MIGRATION)
    def test_a_machine_is_not_carried_while_it_runs_nor_to_nowhere(self, booted: Booted, carried: MigratesCold) -> None:
        place, boot = carried.place(), booted.boot_id()

        with pytest.raises(HypervisorRefused):
            carried.migrate_cold("nowhere-at-all")
        assert booted.boot_id() == boot
        booted.machine.stop(force=True)
        places = carried.cold_destinations()
        booted.machine.start()
        for other in places:
            with pytest.raises(HypervisorRefused):
                carried.migrate_cold(other)

        assert carried.place() == place
        assert booted.machine.state() is MachineState.RUNNING

    # -----------------------------------------------------------------------------------------------------
    # Networks

    @proves(Capability.SHARED_NETWORKS)
    def test_two_guests_meet_on_a_network_and_not_on_another(
        self, hypervisor: Hypervisor, booted: Booted, log_in: Callable[[Machine], Channel]
    ) -> None:
        first: Any = capable(hypervisor, booted.machine, Capability.SHARED_NETWORKS)
        spec: MachineSpec = replace(booted.machine.spec, name=f"contract-{secrets.token_hex(4)}")
        other: Any = hypervisor.create(spec)
        try:
            other.start()
            there = log_in(other)
            _join(booted.channel, first, "alpha", 1)
            _join(there, other, "alpha", 2)
            assert _reaches(booted.channel, 2), "two guests on one network do not reach each other"
            assert _reaches(there, 1)
            _leave(there, other)
            _join(there, other, "beta", 2)
            assert not _reaches(booted.channel, 2), "guests on two networks reach each other"
            there.close()
        finally:
            _leave(booted.channel, first)
            other.destroy()


def _move(hypervisor: Hypervisor, booted: Booted, *, with_storage: bool) -> None:
    machine: Any = capable(hypervisor, booted.machine, Capability.LIVE_MIGRATION)
    migrant: MigratesLive = machine
    places = migrant.destinations()
    if not places:
        raise HostRefuses("there is no other place to bring the machine to")
    token, boot, endpoint = secrets.token_hex(8), booted.boot_id(), booted.machine.endpoint(22)
    assert migrant.place() not in places
    booted.sh(f"echo {token} >/run/contract-moved")
    writer = _Writer(booted)

    try:
        moved = migrant.migrate_live(places[0], with_storage=with_storage)
    except NotSupported as reason:
        raise HostRefuses(reason.what) from reason

    assert migrant.place() == places[0]
    assert booted.machine.state() is MachineState.RUNNING
    assert booted.machine.endpoint(22) == endpoint
    booted.reconnect()
    writer.goes_on()
    writer.end()
    assert booted.boot_id() == boot
    assert booted.sh("cat /run/contract-moved") == token
    assert 0 < moved.downtime_ms <= moved.seconds * 1000
    # All memory that the guest ever wrote has to come along, and it has filled more than this.
    assert moved.transferred_bytes > 16 << 20


def _carry(booted: Booted, machine: MigratesCold) -> str:
    """Bring the machine, which does not run, to another place. Which it is; skips where there is none."""
    places = machine.cold_destinations()
    if not places:
        raise HostRefuses("there is no other place to carry the machine to")
    before = machine.place()
    assert before not in places
    with pytest.raises(HypervisorRefused):
        machine.migrate_cold("nowhere-at-all")
    assert machine.place() == before

    moved = machine.migrate_cold(places[0])

    assert machine.place() == places[0]
    assert before in machine.cold_destinations(), "there is no way back"
    assert booted.machine.state() is MachineState.STOPPED
    assert moved.transferred_bytes > 0
    assert moved.seconds > 0
    return places[0]


_MACS = "52:54:00:c0:fe:"


def _mac(number: int) -> str:
    return f"{_MACS}{number:02x}"


def _join(channel: Channel, machine: SharesNetworks, network: str, number: int) -> None:
    machine.attach_shared_nic("contract", _mac(number), network)
    script = f"""
for card in /sys/class/net/*; do
  if [ "$(cat $card/address)" = {_mac(number)} ]; then
    ip link set ${{card##*/}} up && ip address add 10.213.77.{number}/24 dev ${{card##*/}} && exit 0
  fi
done; exit 1
"""
    waiting.until(
        lambda: channel.run(["sh", "-c", script], timeout_s=60).status == 0,
        what="the guest to see the card",
        timeout_s=_SEEN_S,
    )


def _reaches(channel: Channel, number: int) -> bool:
    return channel.run(["ping", "-c", "3", "-W", "3", f"10.213.77.{number}"], timeout_s=60).status == 0


def _leave(channel: Channel, machine: HotplugsNics) -> None:
    # In good order: a paravirtual kernel does not let go of a card that is up (User-Mode Linux' vector_remove).
    channel.run(
        ["sh", "-c", f"cd /sys/class/net; ip link set $(dirname $(grep -l {_MACS} */address)) down"], timeout_s=60
    )
    machine.detach_nic("contract")
