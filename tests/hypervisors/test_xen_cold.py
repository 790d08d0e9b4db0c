"""Xen machines that are carried to another host while they do not run, between two dom0s without a Xen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from lab.contracts import Capability, MachineState
from lab.errors import HypervisorRefused
from lab.hypervisors import _xen_arrival, xen
from lab.hypervisors._xen_host import XenHost
from lab.hypervisors._xen_machine import XenMachine
from tests.hypervisors.xen_dom0 import FakeDom0

KEY = "ssh-ed25519 " + "A" * 68


@pytest.fixture(scope="module")
def second(running: FakeDom0, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeDom0]:
    """Another dom0, where the same key opens."""
    with FakeDom0(tmp_path_factory.mktemp("second")).running() as second:
        (second.folder / "authorized").write_text((running.folder / "authorized").read_text())
        yield second


def settings(fake: FakeDom0, *others: FakeDom0) -> xen.Settings:
    """As an inventory would say it."""
    dom0 = fake.dom0
    return xen.Settings(
        address="127.0.0.1",
        port=dom0.endpoint.port,
        user=dom0.login.user,
        private_key=str(dom0.login.private_key),
        host_key=dom0.login.host_key,
        guest_addresses=list(dom0.guest_addresses),
        guest_prefix=8,
        gateway="127.0.0.1",
        folder=fake.places.folder,
        log_folder=fake.places.logs,
        peers=[
            xen.Peer(
                name=f"xen-{number}",
                address="127.0.0.1",
                port=other.port,
                host_key=other.dom0.login.host_key,
                folder=other.places.folder,
                log_folder=other.places.logs,
            )
            for number, other in enumerate(others, start=2)
        ],
    )


@pytest.fixture
def host(fake: FakeDom0, second: FakeDom0) -> Iterator[XenHost]:
    with xen.connect("xen-1", settings(fake, second)) as host:
        yield host
        second.mend()


@pytest.fixture
def machine(fake: FakeDom0, host: XenHost) -> Iterator[XenMachine]:
    machine = host.create(fake.spec())
    assert isinstance(machine, XenMachine)
    machine.start()
    yield machine
    machine.destroy()


def folder(fake: FakeDom0) -> Path:
    return fake.folder / "lab/machines/one"


def restored(fake: FakeDom0) -> str:
    """The last call by which a domain was restored."""
    return [call for call in fake.calls() if call.startswith("restore ")][-1]


def test_a_machine_that_sleeps_wakes_at_the_other_host(
    fake: FakeDom0, second: FakeDom0, host: XenHost, machine: XenMachine
) -> None:
    (folder(fake) / "data.raw").write_bytes(b"written by the guest")
    endpoint, console = machine.endpoint(22), machine.console()
    machine.save_state()
    assert list(machine.cold_destinations()) == ["xen-2"]

    took = machine.migrate_cold("xen-2")

    assert (machine.place(), machine.state(), machine.has_saved_state()) == ("xen-2", MachineState.STOPPED, True)
    assert list(machine.cold_destinations()) == ["xen-1"]
    assert not folder(fake).exists()
    assert took.transferred_bytes > 0
    assert 0 < took.downtime_ms == took.seconds * 1000
    machine.start()
    assert second.domains()["lab-one"]["config"]["disk"][0].endswith(f"target={folder(second)}/root.raw")
    assert (folder(second) / "data.raw").read_bytes() == b"written by the guest"
    assert restored(second) == f"restore {folder(second)}/came.cfg {folder(second)}/saved"
    assert machine.endpoint(22) == endpoint
    assert machine.console().startswith(console)
    assert not (folder(second) / "came.cfg").exists()
    assert [found.name for _, found in host.machines()] == ["one"]


def test_a_machine_that_is_off_goes_there_and_back(fake: FakeDom0, second: FakeDom0, machine: XenMachine) -> None:
    machine.stop(force=True)

    machine.migrate_cold("xen-2")
    machine.start()

    assert "lab-one" in second.domains()
    machine.stop(force=True)
    machine.migrate_cold("xen-1")
    assert (machine.place(), folder(fake).exists(), folder(second).exists()) == ("xen-1", True, False)
    machine.start()
    assert "lab-one" in fake.domains()


def test_a_sleep_that_is_discarded_there_boots(second: FakeDom0, machine: XenMachine) -> None:
    machine.save_state()
    machine.migrate_cold("xen-2")
    machine.discard_saved_state()
    machine.start()
    machine.save_state()

    assert not (folder(second) / "came.cfg").exists()
    machine.start()
    assert restored(second) == f"restore {folder(second)}/saved"


def test_a_machine_that_runs_is_not_carried(machine: XenMachine) -> None:
    assert list(machine.cold_destinations()) == []
    with pytest.raises(HypervisorRefused, match="one is running"):
        machine.migrate_cold("xen-2")
    assert machine.state() is MachineState.RUNNING


def test_a_host_that_nobody_named_is_no_place(machine: XenMachine) -> None:
    machine.stop(force=True)

    with pytest.raises(HypervisorRefused, match=r"one cannot be carried to 'moon' \(it can be carried to xen-2\)"):
        machine.migrate_cold("moon")


@pytest.mark.parametrize("failing", ["_UNPACK", "_PACK", "_SETTLED"])
def test_what_fails_on_the_way_leaves_the_machine_where_it_was(
    fake: FakeDom0, second: FakeDom0, machine: XenMachine, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    machine.save_state()
    monkeypatch.setattr(_xen_arrival, failing, "echo No space left on device >&2; exit 1")

    with pytest.raises(HypervisorRefused, match="one could not be carried to xen-2 and stays: "):
        machine.migrate_cold("xen-2")

    assert not folder(second).exists()
    assert (machine.place(), machine.has_saved_state()) == ("xen-1", True)
    machine.start()
    assert "lab-one" in fake.domains()


def test_snapshots_name_folders_and_stay_where_those_are(machine: XenMachine) -> None:
    machine.snapshot("kept")
    machine.stop(force=True)

    assert list(machine.cold_destinations()) == []
    with pytest.raises(HypervisorRefused, match="nowhere, no host is known that could have it"):
        machine.migrate_cold("xen-2")


def test_a_host_that_names_no_other_says_so(fake: FakeDom0) -> None:
    with xen.connect("xen-1", settings(fake)) as host:
        assert host.limits()[Capability.COLD_MIGRATION].startswith("The inventory names no other Xen host")


def test_a_named_host_that_is_not_there_costs_only_the_ways_to_it(fake: FakeDom0, second: FakeDom0) -> None:
    named = settings(fake, second)
    absent = named.peers[0].model_copy(update={"host_key": KEY})

    with xen.connect("xen-1", named.model_copy(update={"peers": [absent]})) as host:
        assert list(host.machines()) == []
        assert host.limits()[Capability.COLD_MIGRATION].startswith("The other host xen-2 cannot be had: xen-2: ")


def test_hosts_with_other_disks_are_no_place(fake: FakeDom0, second: FakeDom0) -> None:
    second.fault("overlays")
    with xen.connect("xen-1", settings(fake, second)) as host:
        machine = host.create(replace(fake.spec(), name="two"))
        assert isinstance(machine, XenMachine)
        try:
            assert list(machine.cold_destinations()) == []
        finally:
            machine.destroy()
    second.mend()


@pytest.mark.parametrize(
    ("peers", "words"),
    [
        ([{"name": "b", "address": "x", "host_key": KEY}] * 2, "a name is there twice"),
        ([{"name": "../b", "address": "x", "host_key": KEY}], "pattern"),
        ([{"name": "b", "address": "x", "host_key": "ssh-rsa A"}], "pattern"),
        ([{"name": "b", "address": "x", "host_key": KEY, "folder": "/a/../b"}], r"no \.\. in it"),
        ([{"name": "b", "address": "x", "host_key": KEY, "user": "root"}], "Extra inputs"),
    ],
)
def test_what_is_no_host_is_refused_in_an_inventory(peers: list[dict[str, str]], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        xen.Settings.model_validate({"address": "a", "private_key": "/k", "host_key": KEY, "peers": peers})


def test_a_host_that_the_lab_makes_names_no_others() -> None:
    with pytest.raises(ValidationError, match="lab_peers: not of a host that the lab makes"):
        xen.Settings.model_validate(
            {"made_from": "xen-host", "peers": [{"name": "b", "address": "x", "host_key": KEY}]}
        )
