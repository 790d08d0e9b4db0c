"""Connections: which hosts are made, who shares them, when they go; the maker and the driver are of a few lines."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab import hypervisors, process
from lab.contracts import Image, Realness
from lab.errors import ConfigurationError, HostError, LabBusy, MissingTool
from lab.hypervisors import _machine_directory
from lab.inventory.models import Host
from lab.provisioning import hosts, images, made_host

IMAGE = Image("xen-host", "sha256:1", Path("/disk.raw"), "raw")


class Driver:
    """Drives hosts that are made from the recipe "tiny"; `there` are the machines on all of them."""

    RUNS_HERE = False

    def __init__(self) -> None:
        self.there: list[object] = []
        self.connected: list[object] = []
        self.fails: Exception | None = None

    def made_from(self, settings: Any) -> str:
        return str(settings)

    @contextmanager
    def connect(self, name: str, settings: Any) -> Iterator[Any]:
        yield SimpleNamespace(name=name, machines=lambda: self.there)

    @contextmanager
    def connect_made(self, name: str, settings: Any, reached: object) -> Iterator[Any]:
        self.connected.append(reached)
        if self.fails is not None:
            raise self.fails
        yield SimpleNamespace(name=name, machines=lambda: self.there)


class Maker:
    """Stands for `made_host`: what was made, and whether it answers."""

    def __init__(self) -> None:
        self.made = 0
        self.host: SimpleNamespace | None = None
        self.well = True

    def restore(self, name: str, image: Image, progress: object) -> SimpleNamespace:
        self.made += 1
        self.host = SimpleNamespace(
            reached=lambda number=self.made: number,
            answers=lambda: self.well,
            destroy=self.forget,
            did_not_answer=lambda reason: HostError(f"the host did not come up: {reason.what}; its console: (XEN)"),
            emulator=SimpleNamespace(path=Path("/there")),
        )
        return self.host

    def existing(self, name: str) -> SimpleNamespace | None:
        return self.host

    def is_up(self) -> bool:
        return self.host is not None

    def forget(self) -> None:
        self.host = None
        self.well = True


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    driver = Driver()
    monkeypatch.setattr(hypervisors, "load", lambda name: driver)
    return driver


@pytest.fixture
def maker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Maker:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    maker = Maker()
    monkeypatch.setattr(made_host, "restore", maker.restore)
    monkeypatch.setattr(made_host, "existing", maker.existing)
    monkeypatch.setattr(images, "resolve", lambda source, progress: IMAGE)
    monkeypatch.setattr(hosts, "lacks", lambda host: None)
    monkeypatch.setattr(hosts, "is_there", lambda host: maker.is_up())
    return maker


def a_host(recipe: str = "xen-host", realness: Realness = Realness.EMULATED) -> Host:
    return Host("xen-local", "xen", recipe, realness)


def held(host: Host) -> int:
    """What another process does that uses the host."""
    folder = _machine_directory.of_host(made_host.DRIVER, host.name)
    opened = os.open(folder / ".users", os.O_RDWR)
    fcntl.flock(opened, fcntl.LOCK_SH)
    return opened


def test_a_host_that_somebody_set_up_is_not_made(driver: Driver, maker: Maker) -> None:
    with hosts.connect(a_host("", Realness.REAL)) as hypervisor:
        assert hypervisor.name == "xen-local"

    assert maker.made == 0


def test_a_made_host_is_made_for_who_connects_and_goes_with_him(driver: Driver, maker: Maker) -> None:
    with hosts.connect(a_host()):
        assert maker.is_up()

    assert maker.made == 1
    assert not maker.is_up()


def test_a_made_host_stays_while_a_machine_is_on_it(driver: Driver, maker: Maker) -> None:
    with hosts.connect(a_host()):
        driver.there.append("a machine")
    assert maker.is_up()

    with hosts.connect(a_host()):
        driver.there.clear()

    assert maker.made == 1
    assert not maker.is_up()


def test_two_at_once_share_one_host_and_the_last_one_removes_it(driver: Driver, maker: Maker) -> None:
    with hosts.connect(a_host()):
        with hosts.connect(a_host()):
            pass
        assert maker.is_up()

    assert maker.made == 1
    assert not maker.is_up()


def test_a_host_stays_while_another_process_uses_it(driver: Driver, maker: Maker) -> None:
    with hosts.connect(a_host()):
        other = held(a_host())

    assert maker.is_up()
    os.close(other)


def test_a_host_that_hangs_is_made_anew_where_nobody_uses_it(driver: Driver, maker: Maker) -> None:
    with hosts.connect(a_host()):
        driver.there.append("a machine")
    maker.well = False
    driver.there.clear()

    with hosts.connect(a_host()):
        pass

    assert maker.made == 2


def test_a_host_that_hangs_is_not_taken_from_those_who_use_it(driver: Driver, maker: Maker) -> None:
    with hosts.connect(a_host()):
        driver.there.append("a machine")
    maker.well = False
    other = held(a_host())

    with pytest.raises(HostError, match="that other processes of the lab use does not answer"), hosts.connect(a_host()):
        pass

    assert maker.is_up()
    os.close(other)


def test_a_host_that_cannot_be_logged_in_to_goes(driver: Driver, maker: Maker) -> None:
    driver.fails = HostError("no")

    with pytest.raises(HostError, match=r"did not come up: no; its console: \(XEN\)"), hosts.connect(a_host()):
        pass

    assert not maker.is_up()


def test_a_fault_of_the_user_leaves_what_still_has_machines(driver: Driver, maker: Maker) -> None:
    driver.there.append("a machine")

    with pytest.raises(KeyError), hosts.connect(a_host()):
        raise KeyError

    assert maker.is_up()


def test_looking_for_machines_makes_no_host(driver: Driver, maker: Maker) -> None:
    with hosts.connect_existing(a_host()) as hypervisor:
        assert hypervisor is None

    assert maker.made == 0


def test_looking_for_machines_uses_the_host_that_is_there(driver: Driver, maker: Maker) -> None:
    driver.there.append("a machine")
    with hosts.connect(a_host()):
        pass

    with hosts.connect_existing(a_host()) as hypervisor:
        assert hypervisor is not None
        assert len(hypervisor.machines()) == 1


def test_an_emulated_host_is_never_shown_as_real(driver: Driver, maker: Maker) -> None:
    with (
        pytest.raises(ConfigurationError, match=r"on an emulated processor\n  -> write lab_realness: emulated"),
        hosts.connect(a_host(realness=Realness.REAL)),
    ):
        pass


def test_a_made_host_takes_this_machines_processors(driver: Driver, maker: Maker) -> None:
    assert hosts.runs_here(a_host())
    assert not hosts.runs_here(a_host(""))


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which no image and no host is there yet."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_machine_with_little_memory_cannot_make_one(
    driver: Driver, empty: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psutil

    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=2048 << 20, available=1 << 30))

    problem = hosts.lacks(a_host())

    assert isinstance(problem, LabBusy)
    assert problem.what == "this machine has 2048 MiB of memory, and a host that the lab makes needs one of 4000"


def test_a_machine_without_a_tool_cannot_make_one(driver: Driver, empty: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(program: str, *, package: str) -> str:
        if program == "mmdebstrap":
            raise MissingTool(f"{program} is not on this machine", hint=f"apt-get install {package}")
        return program

    monkeypatch.setattr(process, "find", find)

    problem = hosts.lacks(a_host())

    assert str(problem) == (
        "mmdebstrap is not on this machine, and the host xen-local is made with it\n  -> apt-get install mmdebstrap"
    )


def test_a_host_that_somebody_set_up_lacks_nothing(driver: Driver, empty: None) -> None:
    assert hosts.lacks(a_host("")) is None


def test_what_making_a_host_will_take_is_told(driver: Driver, empty: None) -> None:
    assert hosts.state_of(a_host()) == "its image is built first, which takes minutes, once"


def test_only_the_host_that_was_not_soaked_enough_is_doubted(driver: Driver) -> None:
    assert hosts.doubt_about(a_host("kvm-host")).startswith("KVM there is not proved to be stable")
    assert (hosts.doubt_about(a_host("xen-host")), hosts.doubt_about(a_host(""))) == ("", "")
