"""Live migration through the connection of two libvirtd, with a guest that counts on its disk and on its console."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lab.contracts import MachineState
from lab.errors import NotSupported
from lab.hypervisors import _libvirt_daemon as daemons
from lab.hypervisors import libvirt
from lab.hypervisors._libvirt_host import LibvirtHost
from lab.hypervisors._libvirt_machine import LibvirtMachine
from tests.hypervisors import libvirt_own as own
from tests.hypervisors.conftest import Ticker


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LibvirtHost]:
    with own.connected(tmp_path_factory, libvirt.Settings(accelerator="tcg", migration="tunnelled")) as host:
        yield host


@pytest.fixture
def ticker(host: LibvirtHost, tmp_path: Path) -> Iterator[Ticker]:
    machine = host.create(replace(own.spec_of(tmp_path, "ticking"), data_disk_mib=4))
    assert isinstance(machine, LibvirtMachine)
    machine.start()
    made = Ticker(machine)  # type: ignore[arg-type]
    made.counts_on()
    yield made
    machine.destroy()


def test_a_guest_moves_through_the_tunnel_and_back_without_a_stumble(ticker: Ticker) -> None:
    machine = ticker.machine
    endpoint = machine.endpoint(22)

    for place in ("second", "first"):
        moved = machine.migrate_live(place, with_storage=False)

        assert machine.place() == place
        assert machine.state() is MachineState.RUNNING
        assert machine.endpoint(22) == endpoint
        ticker.counts_on()
        assert ticker.stumbles() == []
        assert 0 < moved.downtime_ms <= moved.seconds * 1000
        assert moved.transferred_bytes > 0


def test_no_disk_goes_through_the_tunnel(ticker: Ticker) -> None:
    folder = daemons.folder_of(own.HOST) / "disks"
    before = {path.name for path in folder.iterdir()}

    with pytest.raises(NotSupported, match=r"libvirt carries no disks through a tunnel: .*host"):
        ticker.machine.migrate_live("second", with_storage=True)

    assert ticker.machine.place() == "first"
    assert {path.name for path in folder.iterdir()} == before
    ticker.counts_on()
    assert ticker.stumbles() == []
