"""Bring-up: one machine at a time, warm where it may be, and nothing left whatever happens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab import hypervisors
from lab.contracts import (
    Capability,
    Cell,
    Endpoint,
    Firmware,
    HostFacts,
    Image,
    Machine,
    MachineSpec,
    MachineState,
    Owner,
    Profile,
    Realness,
)
from lab.errors import GuestPanicked, HypervisorRefused, LabError
from lab.inventory.models import Host
from lab.provisioning import bring_up

CELL = Cell("h", "g", "p")
OWNER = Owner("20260101-000000-0000", "h/g/p", 1, 1)


@dataclass
class FakeMachine:
    spec: MachineSpec
    events: list[str]

    @property
    def name(self) -> str:
        return self.spec.name

    def state(self) -> MachineState:
        return MachineState.RUNNING

    def start(self) -> None:
        self.events.append("start")

    def stop(self, *, force: bool = False, timeout_s: float = 60.0) -> None:
        self.events.append("stop")

    def addresses(self) -> Sequence[str]:
        return ()

    def endpoint(self, guest_port: int) -> Endpoint:
        return Endpoint("127.0.0.1", guest_port)

    def console(self) -> bytes:
        return b"console of " + self.name.encode()

    def reproduce(self) -> str:
        return "make it"

    def destroy(self) -> None:
        self.events.append("destroy")


@dataclass
class FakeHypervisor:
    events: list[str] = field(default_factory=list)
    saved: dict[str, bytes] = field(default_factory=dict)
    refused: dict[Capability, str] = field(default_factory=dict)
    bad_copy: bool = False
    realness: Realness = Realness.REAL
    name: str = "h"

    def facts(self) -> HostFacts:
        return HostFacts("Fake", "1", "1", self.realness)

    def limits(self) -> Mapping[Capability, str]:
        return self.refused

    def upload(self, image: Image) -> None:
        self.events.append("upload")

    def create(self, spec: MachineSpec) -> Machine:
        assert spec.seed is not None
        assert spec.seed.exists()
        self.events.append("create")
        return FakeMachine(spec, self.events)

    def machines(self) -> Sequence[tuple[Owner, Machine]]:
        return ()

    def warm_key(self, spec: MachineSpec) -> str:
        return "key"

    def has_warm(self, key: str) -> bool:
        return key in self.saved

    def save_warm(self, key: str, machine: Machine, identity: bytes) -> None:
        self.events.append("save")
        self.saved[key] = identity

    def warm_identity(self, key: str) -> bytes:
        return self.saved[key]

    def clone_warm(self, key: str, spec: MachineSpec) -> Machine:
        if self.bad_copy:
            raise HypervisorRefused("the copy is bad")
        self.events.append("clone")
        return FakeMachine(spec, self.events)

    def forget_warm(self, key: str) -> None:
        self.events.append("forget")
        self.saved.pop(key, None)


class FakeGuest:
    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.facts = SimpleNamespace(as_json=lambda: {"hostname": "g"})

    def run(self, *argv: str, timeout_s: float = 60.0) -> Any:
        return SimpleNamespace(stdout=b"kernel log\n")

    def close(self) -> None:
        return


@dataclass
class Bench:
    """What a test may turn and look at."""

    hypervisor: FakeHypervisor
    directory: Path
    boot_error: LabError | None = None
    clone_error: LabError | None = None

    @contextmanager
    def session(self) -> Iterator[bring_up.CellSession]:
        profile = Profile("p", Firmware.BIOS, "pc", "virtio", "virtio", 1, 128)
        inventory: Any = SimpleNamespace(
            hosts={"h": Host("h", "fake", None, Realness.REAL)},
            guests={
                "g": SimpleNamespace(
                    name="g",
                    image=None,
                    seed="lab",
                    boot_timeout_s=5.0,
                    family="linux",
                    channel=SimpleNamespace(user="root", port=22),
                )
            },
            profile_of=lambda cell: profile,
        )
        with bring_up.open_session(
            inventory, CELL, owner=OWNER, directory=self.directory, progress=lambda line: None
        ) as session:
            yield session

    @property
    def events(self) -> list[str]:
        return self.hypervisor.events


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = Bench(FakeHypervisor(), tmp_path / "attempt-1")

    @contextmanager
    def connect(name: str, settings: object) -> Iterator[FakeHypervisor]:
        yield made.hypervisor

    def log_in(machine: Machine, *_: object, **__: object) -> FakeGuest:
        if made.boot_error is not None:
            raise made.boot_error
        return FakeGuest(machine)

    def log_in_to_copy(machine: Machine, *_: object) -> FakeGuest:
        if made.clone_error is not None:
            raise made.clone_error
        return FakeGuest(machine)

    image = Image("i", "sha256:" + "0" * 64, tmp_path / "disk.raw", "raw")
    monkeypatch.setattr(hypervisors, "load", lambda name: SimpleNamespace(connect=connect))
    monkeypatch.setattr(bring_up.images, "resolve", lambda source, *, progress: image)
    monkeypatch.setattr(bring_up, "log_in", log_in)
    monkeypatch.setattr(bring_up, "log_in_to_copy", log_in_to_copy)
    return made


def test_nothing_is_made_before_a_check_asks(bench: Bench) -> None:
    with bench.session():
        pass

    assert bench.events == []


def test_checks_share_one_machine_which_is_gone_at_the_end(bench: Bench) -> None:
    with bench.session() as session:
        assert session.guest(cold=False) is session.guest(cold=True)

    assert bench.events == ["upload", "create", "start", "save", "destroy"]


def test_a_machine_that_booted_is_saved_once(bench: Bench) -> None:
    bench.hypervisor.saved["key"] = b""
    with bench.session() as session:
        session.guest(cold=True)

    assert "save" not in bench.events


def test_a_saved_machine_is_cloned_and_the_record_says_warm(bench: Bench) -> None:
    with bench.session() as session:
        session.guest(cold=False)
    bench.events.clear()

    with bench.session() as session:
        session.guest(cold=False)
        warm = session.is_warm

    assert warm
    assert bench.events == ["upload", "clone", "destroy"]


def test_a_cold_check_after_warm_ones_gets_a_machine_that_was_booted(bench: Bench) -> None:
    with bench.session() as session:
        session.guest(cold=False)
    bench.events.clear()

    with bench.session() as session:
        session.guest(cold=False)
        session.guest(cold=True)
        warm = session.is_warm

    assert not warm
    assert bench.events == ["upload", "clone", "destroy", "upload", "create", "start", "destroy"]


def test_a_bad_copy_is_forgotten_and_the_guest_judged_by_a_cold_boot(bench: Bench) -> None:
    bench.hypervisor.saved["key"] = _identity()
    bench.hypervisor.bad_copy = True

    with bench.session() as session:
        session.guest(cold=False)
        warm = session.is_warm

    assert not warm
    assert bench.events == ["upload", "forget", "create", "start", "save", "destroy"]


def test_a_clone_that_does_not_answer_is_destroyed_before_the_cold_boot(bench: Bench) -> None:
    bench.hypervisor.saved["key"] = _identity()
    bench.clone_error = LabError("no answer")

    with bench.session() as session:
        session.guest(cold=False)

    assert bench.events[:4] == ["upload", "clone", "destroy", "forget"]


def test_a_host_that_refuses_warm_clones_is_not_asked_for_one(bench: Bench) -> None:
    bench.hypervisor.refused[Capability.WARM_CLONES] = "no memory to save"

    with bench.session() as session:
        session.guest(cold=False)

    assert bench.events == ["upload", "create", "start", "destroy"]


def test_a_guest_that_does_not_boot_leaves_its_console_and_no_machine(bench: Bench) -> None:
    bench.boot_error = GuestPanicked("panic")

    with pytest.raises(GuestPanicked), bench.session() as session:
        session.guest(cold=False)

    assert bench.events == ["upload", "create", "start", "destroy"]
    assert (bench.directory / "console.log").read_bytes().startswith(b"console of lab-")


def test_the_seed_with_the_private_host_key_does_not_stay(bench: Bench) -> None:
    with bench.session() as session:
        session.guest(cold=False)

    assert not list(bench.directory.glob("seed*"))


def test_console_kernel_log_and_reproduction_are_collected(bench: Bench) -> None:
    with bench.session() as session:
        session.guest(cold=False)

    names = {path.name for path in bench.directory.iterdir()}
    assert {"console.log", "kernel.log", "reproduce.txt"} <= names
    assert (bench.directory / "kernel.log").read_text() == "kernel log\n"


def test_a_host_that_is_less_real_than_its_inventory_says_lowers_the_realness(bench: Bench) -> None:
    bench.hypervisor.realness = Realness.SIMULATED

    with bench.session() as session:
        assert session.realness is Realness.SIMULATED


def test_every_machine_of_a_cell_has_a_name_of_its_own(bench: Bench) -> None:
    with bench.session() as session:
        first = session.guest(cold=False).machine.name
        session.put_away()
        second = session.guest(cold=False).machine.name

    assert first != second


def test_a_peer_is_a_second_machine_that_goes_with_the_first(bench: Bench) -> None:
    with bench.session() as session:
        first = session.guest(cold=False)
        second = session.peer()

        assert second is session.peer()
        assert session.machines == (first.machine, second.machine)
        assert first.machine.name != second.machine.name
        assert session.guest(cold=True) is first
        session.put_away()
        assert session.machines == ()

    assert bench.events.count("destroy") == 2
    assert (bench.directory / "peer" / "console.log").read_text() == f"console of {second.machine.name}\n"


def test_a_peer_is_destroyed_although_the_first_machine_resists(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with bench.session() as session:
        first, second = session.guest(cold=False).machine.name, session.peer().machine.name

        def resists(machine: FakeMachine) -> None:
            bench.events.append(f"destroy {machine.name}")
            if machine.name == first:
                raise HypervisorRefused("not now")

        monkeypatch.setattr(FakeMachine, "destroy", resists)
        with pytest.raises(HypervisorRefused):
            session.put_away()

    assert bench.events[-2:] == [f"destroy {first}", f"destroy {second}"]


def test_whether_the_guest_is_warm_is_not_asked_of_its_peer(bench: Bench) -> None:
    with bench.session() as session:
        session.guest(cold=True)
        session.peer()

        assert not session.is_warm


def _identity() -> bytes:
    from lab.guests.identity import Identity
    from lab.provisioning import keys
    from lab.provisioning.first_login_warm import Kept

    return Kept(Identity.make("template"), keys.client_key().public, None).to_bytes()


def test_a_copy_that_an_earlier_lab_kept_is_forgotten_and_made_anew(bench: Bench) -> None:
    from lab.guests.identity import Identity

    bench.hypervisor.saved["key"] = Identity.make("template").to_bytes()

    with bench.session() as session:
        session.guest(cold=False)

    assert bench.events == ["upload", "forget", "create", "start", "save", "destroy"]
