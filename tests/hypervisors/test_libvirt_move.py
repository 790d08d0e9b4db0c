"""Live migration between two libvirtd, and snapshots, with a guest that counts on its disk and on its console."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lab.contracts import MachineState
from lab.errors import HypervisorRefused, NotSupported
from lab.hypervisors import _libvirt_daemon as daemons
from lab.hypervisors._libvirt_host import LibvirtHost
from lab.hypervisors._libvirt_machine import LibvirtMachine
from tests.hypervisors import libvirt_own as own
from tests.hypervisors.conftest import Ticker


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LibvirtHost]:
    with own.connected(tmp_path_factory) as host:
        yield host


@pytest.fixture
def ticker(host: LibvirtHost, tmp_path: Path) -> Iterator[Ticker]:
    """A running one, with a data disk."""
    machine = host.create(replace(own.spec_of(tmp_path, "ticking"), data_disk_mib=4))
    assert isinstance(machine, LibvirtMachine)
    machine.start()
    made = Ticker(machine)  # type: ignore[arg-type]
    made.counts_on()
    yield made
    machine.destroy()


def test_a_guest_moves_and_comes_back_without_a_stumble(host: LibvirtHost, ticker: Ticker) -> None:
    machine = ticker.machine
    endpoint = machine.endpoint(22)
    assert (machine.place(), list(machine.destinations())) == ("first", ["second"])

    for place in ("second", "first"):
        moved = machine.migrate_live(place, with_storage=False)

        assert machine.place() == place
        assert machine.state() is MachineState.RUNNING
        assert machine.endpoint(22) == endpoint
        ticker.counts_on()
        assert ticker.stumbles() == []
        assert 0 < moved.downtime_ms <= moved.seconds * 1000
        assert moved.transferred_bytes > 0
        assert [found.name for _, found in host.machines()] == ["one"]


def test_a_guest_moves_with_its_disks_and_starts_from_them_again(host: LibvirtHost, ticker: Ticker) -> None:
    machine = ticker.machine
    folder = daemons.folder_of(own.HOST) / "disks"
    before = {path.name for path in folder.iterdir()}

    machine.migrate_live("second", with_storage=True)

    ticker.counts_on()
    assert ticker.stumbles() == []
    after = {path.name for path in folder.iterdir()}
    assert len(after) == len(before)
    assert {name for name in before if name.endswith((".root", ".data"))} & after == set()
    machine.resize_data_disk(8)
    machine.stop(force=True)
    last = ticker.counts()[-1]
    machine.start()
    ticker.counts_on()
    assert ticker.counts()[-1] > last
    machine.destroy()
    assert [path.name for path in folder.iterdir() if machine.uuid in path.name] == []  # type: ignore[attr-defined]


def test_a_place_that_is_not_there_is_refused_and_the_guest_stays(ticker: Ticker) -> None:
    with pytest.raises(HypervisorRefused, match="own has no place 'moon' to bring one to"):
        ticker.machine.migrate_live("moon", with_storage=False)

    assert ticker.machine.place() == "first"
    ticker.counts_on()


def test_a_machine_with_snapshots_is_not_moved(ticker: Ticker) -> None:
    ticker.machine.snapshot("kept")

    with pytest.raises(NotSupported, match="libvirt moves no machine that has snapshots"):
        ticker.machine.migrate_live("second", with_storage=False)

    assert ticker.machine.place() == "first"


def test_a_destination_that_dies_leaves_the_guest_where_it_was(ticker: Ticker, monkeypatch: pytest.MonkeyPatch) -> None:
    second = daemons.daemons_of(own.HOST)[1]
    second.ensure()
    from lab.hypervisors import _libvirt_move as move

    real = move._sockets

    def dying(there: object) -> tuple[Path, Path]:
        found = real(there)  # type: ignore[arg-type]
        # Just before the source speaks to it; it is not started again meanwhile.
        own.end(second, kill=True)
        return found

    monkeypatch.setattr(move, "_sockets", dying)
    with pytest.raises(HypervisorRefused, match="live migration of one"):
        ticker.machine.migrate_live("second", with_storage=True)

    assert ticker.machine.place() == "first"
    assert ticker.machine.state() is MachineState.RUNNING
    ticker.counts_on()
    assert ticker.stumbles() == []


def test_what_was_restored_goes_on_where_it_was_kept(ticker: Ticker) -> None:
    machine = ticker.machine
    machine.snapshot("kept")
    kept = ticker.counts()[-1]
    ticker.counts_on()

    machine.restore("kept")

    ticker.counts_on()
    assert list(machine.snapshots()) == ["kept"]
    assert ticker.boots() == 1
    again = ticker.counts()
    assert again.count(kept + 2) == 2, "it did not count the same twice"
    machine.delete_snapshot("kept")
    assert list(machine.snapshots()) == []
