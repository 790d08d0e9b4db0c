"""`lab ls`: whose each machine is, and how to get in."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab import hypervisors, process
from lab.contracts import Cell, Endpoint, MachineState, Owner
from lab.errors import HostError, HypervisorRefused
from lab.runner import kept, listing
from lab.runner.kept import Document

CELL = Cell("h", "g", "p")
RUN = "20260102-030405-beef"


class Machine:
    spec = SimpleNamespace(profile=SimpleNamespace(memory_mib=256))

    def __init__(self, name: str, state: MachineState = MachineState.RUNNING) -> None:
        self.name, self._state = name, state

    def state(self) -> MachineState:
        return self._state

    def endpoint(self, guest_port: int) -> Endpoint:
        if self._state is not MachineState.RUNNING:
            raise HypervisorRefused("stopped")
        return Endpoint("127.0.0.1", 40000 + guest_port)


class Host:
    """An inventory with one host, and the machines on it."""

    def __init__(self, folder: Path) -> None:
        self.inventory: Any = SimpleNamespace(
            path=folder,
            hosts={"h": SimpleNamespace(name="h", driver="d", settings=None)},
            guests={"g": SimpleNamespace(channel=SimpleNamespace(port=2022))},
        )
        self.machines: Sequence[tuple[Owner, Machine]] = ()

    def list(self) -> listing.Listing:
        return listing.every({Path("written"): self.inventory})


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    made = Host(tmp_path / "inventory")

    @contextmanager
    def connect(name: str, settings: object) -> Iterator[Any]:
        yield SimpleNamespace(machines=lambda: made.machines)

    monkeypatch.setattr(hypervisors, "load", lambda name: SimpleNamespace(connect=connect))
    return made


def living(run: str) -> Owner:
    return Owner(run, "h/g/p", os.getpid(), process.start_time(os.getpid()) or 0)


def keep(host: Host, since: datetime) -> Owner:
    place = kept.place_of(host.inventory.path, CELL)
    place.make()
    place.write(
        Document(
            cell="h/g/p",
            inventory=host.inventory.path.resolve(),
            machine="mine",
            user="root",
            port=22,
            host_key="ssh-ed25519 AAAA",
            warm=False,
            since=since,
        )
    )
    return Owner(place.run, "h/g/p", 2**22 + 1, 1)


def test_a_cell_that_is_up_by_hand_shows_the_command_that_gets_in(host: Host) -> None:
    since = datetime.now(UTC)
    host.machines = [(keep(host, since), Machine("mine"))]

    assert host.list().as_json() == {
        "schema": 1,
        "machines": [
            {
                "cell": "h/g/p",
                "host": "h",
                "machine": "mine",
                "whose": "by hand",
                "state": "running",
                "since": since.isoformat(),
                "memory_mib": 256,
                "endpoint": {"host": "127.0.0.1", "port": 40022},
                "command": "lab ssh written h/g/p",
            }
        ],
        "problems": [],
    }


def test_a_machine_of_a_run_shows_the_run_and_when_it_began(host: Host) -> None:
    host.machines = [(living(RUN), Machine("theirs"))]

    (found,) = host.list().machines
    assert (found.whose, found.since) == (f"run {RUN}", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    assert (found.endpoint, found.command) == (Endpoint("127.0.0.1", 42022), "")


def test_what_a_dead_run_left_is_called_so(host: Host) -> None:
    host.machines = [(Owner(RUN, "h/g/p", 2**22 + 1, 1), Machine("theirs"))]

    assert [found.whose for found in host.list().machines] == ["left over"]


def test_what_is_up_by_hand_for_too_long_is_left_over_but_can_still_be_entered(host: Host) -> None:
    host.machines = [(keep(host, datetime.now(UTC) - timedelta(days=2)), Machine("mine"))]

    assert [(found.whose, bool(found.command)) for found in host.list().machines] == [("left over", True)]


def test_what_comes_up_now_is_called_so(host: Host) -> None:
    run = kept.place_of(host.inventory.path, CELL).run
    host.machines = [(living(run), Machine("mine", MachineState.STOPPED))]

    assert [(it.whose, it.state, it.endpoint) for it in host.list().machines] == [
        ("by hand, coming up", MachineState.STOPPED, None)
    ]


def test_inventories_that_share_a_host_show_a_machine_once_with_the_way_in(host: Host, tmp_path: Path) -> None:
    other = Host(tmp_path / "other")
    host.machines = [(keep(host, datetime.now(UTC)), Machine("mine"))]

    found = listing.every({Path("other"): other.inventory, Path("written"): host.inventory})

    assert [it.command for it in found.machines] == ["lab ssh written h/g/p"]


def test_a_host_that_cannot_be_reached_is_told_and_hides_no_other(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.machines = [(living(RUN), Machine("theirs"))]
    works = hypervisors.load("d").connect

    def connect(name: str, settings: object) -> Any:
        if name == "far":
            raise HostError("no route")
        return works(name, settings)

    monkeypatch.setattr(hypervisors, "load", lambda name: SimpleNamespace(connect=connect))
    host.inventory.hosts = {"far": SimpleNamespace(name="far", driver="d", settings=None), **host.inventory.hosts}

    found = host.list()

    assert [it.machine for it in found.machines] == ["theirs"]
    assert found.problems == ("far: no route",)
