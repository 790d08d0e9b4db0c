"""A session that needs no machine, and a way to run made-up checks in it."""

from __future__ import annotations

import itertools
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from lab import catalogue, pytest_plugin
from lab.contracts import Capability, Cell, MachineState, Realness
from lab.errors import GuestRebooted
from lab.results.record import Record
from tests.checking.made import records

FEATURES = """\
drivers: {fake: qemu}
features:
- {id: boot.core, area: Boot, meaning: Boots, families: [linux], hypervisors: [qemu]}
- {id: channel.nmi, area: Channels, meaning: NMI, families: [linux], hypervisors: [hyperv]}
"""
HEAD = """
import pytest
from lab.errors import *
from lab.suite import *

"""
NUMBERS = itertools.count()


class FakeMachine:
    """A machine that can be paused and nothing else."""

    name = "machine"

    def __init__(self) -> None:
        self.now = MachineState.RUNNING
        self.log = b""

    def state(self) -> MachineState:
        return self.now

    def console(self) -> bytes:
        return self.log

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class FakeGuest:
    """A guest that answers, and whose boot a check may change."""

    inspect = "inspector"

    def __init__(self, machine: FakeMachine) -> None:
        self.machine = machine
        self.rebooted = False

    def assert_same_boot(self) -> None:
        if self.rebooted:
            raise GuestRebooted("the guest rebooted by itself")


@dataclass
class FakeHypervisor:
    refused: Mapping[Capability, str] = field(default_factory=dict)

    def limits(self) -> Mapping[Capability, str]:
        return self.refused


@dataclass
class FakeSession:
    """What `lab.provisioning.bring_up.CellSession` is to the checks."""

    directory: Path
    fails: Exception | None = None
    hypervisor: FakeHypervisor = field(default_factory=FakeHypervisor)
    cell: Cell = field(default_factory=lambda: Cell("host", "guest", "profile"))
    host: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(driver="fake"))
    entry: SimpleNamespace = field(
        default_factory=lambda: SimpleNamespace(family="linux", channel=SimpleNamespace(port=22))
    )
    is_warm: bool = False
    realness: Realness = Realness.SIMULATED
    emulates_virtualisation: bool = False
    machine: FakeMachine | None = None
    second: FakeGuest | None = None
    asked: list[bool] = field(default_factory=list)
    put_away_count: int = 0
    _guest: FakeGuest | None = None

    def guest(self, *, cold: bool) -> FakeGuest:
        self.asked.append(cold)
        if self.fails is not None:
            raise self.fails
        self.is_warm = not cold
        if self._guest is None:
            self.machine = FakeMachine()
            self._guest = FakeGuest(self.machine)
        return self._guest

    @property
    def machines(self) -> Sequence[FakeMachine]:
        up = [] if self.machine is None else [self.machine]
        return up if self.second is None else [*up, self.second.machine]

    def peer(self) -> FakeGuest:
        if self.second is None:
            self.second = FakeGuest(FakeMachine())
        return self.second

    def put_away(self) -> None:
        self.put_away_count += 1
        self._guest = self.machine = self.second = None


@pytest.fixture
def session(tmp_path: Path) -> FakeSession:
    directory = tmp_path / "run" / "cells" / "host" / "guest" / "profile" / "attempt-1"
    directory.mkdir(parents=True)
    return FakeSession(directory)


@pytest.fixture
def suites(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    before = set(sys.modules)

    def make(text: str) -> Path:
        folder = tmp_path / "suites" / "conformance" / "boot"
        folder.mkdir(parents=True, exist_ok=True)
        (tmp_path / "suites" / "features.yaml").write_text(FEATURES)
        # A name of its own, because pytest keeps the modules of one process by their names.
        (folder / f"test_made{next(NUMBERS)}.py").write_text(HEAD + textwrap.dedent(text))
        return tmp_path / "suites"

    yield make
    for name in set(sys.modules) - before:
        if name.startswith("conformance"):
            del sys.modules[name]


Run = Callable[..., Sequence[Record]]


@pytest.fixture
def run(session: FakeSession, suites: Callable[[str], Path]) -> Run:
    """Runs the checks of one text and returns their records."""

    def checks(text: str, names: Sequence[str] | None = None) -> Sequence[Record]:
        folder = suites(text)
        ids = [check.id for check in catalogue.load(folder).checks]
        wanted = [name for name in ids if names is None or name.partition("::")[2] in names]
        pytest_plugin.run_checks(
            session, wanted, run="20260101-000000-0000", attempt=1, suites=folder, progress=lambda check: None
        )
        return records(session)

    return checks
