"""The fixtures of a cell's checks; registered only while a cell's checks run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from lab.checking.cell_run import CellRun
from lab.checking.handed import Evidence, Measurements
from lab.contracts import Hypervisor, Machine

if TYPE_CHECKING:
    from lab.guests.guest import Guest

CELL_RUN = pytest.StashKey[CellRun]()


@pytest.fixture
def guest(request: pytest.FixtureRequest) -> Guest:
    """The guest of this cell; one that was booted for it when the check says `cold`."""
    return request.config.stash[CELL_RUN].guest()


@pytest.fixture
def machine(guest: Guest) -> Machine:
    """The guest's virtual machine as its hypervisor shows it."""
    return guest.machine


@pytest.fixture
def peer(request: pytest.FixtureRequest, guest: Guest) -> Guest:
    """A second guest of the same cell, for a check that says `machines=2`; it is there as long as the first one."""
    return request.config.stash[CELL_RUN].peer()


@pytest.fixture
def reconnect(request: pytest.FixtureRequest, guest: Guest) -> Callable[[float], None]:
    """Waits (at most so many seconds) until a guest that was off, or was restored, answers again."""
    port = request.config.stash[CELL_RUN].session.entry.channel.port

    def again(timeout_s: float) -> None:
        # A machine that was started anew may be reached at another port of this one.
        guest.reconnect(timeout_s=timeout_s, endpoint=guest.machine.endpoint(port))

    return again


@pytest.fixture
def hypervisor(request: pytest.FixtureRequest) -> Hypervisor:
    """The connected host."""
    return request.config.stash[CELL_RUN].session.hypervisor


@pytest.fixture
def inspect(guest: Guest) -> Any:
    """A testinfra host over the guest's channel."""
    return guest.inspect


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Measurements:
    """Takes the numbers of this check."""
    return request.config.stash[CELL_RUN].current.measured


@pytest.fixture
def evidence(request: pytest.FixtureRequest) -> Evidence:
    """Takes files for the reader."""
    return request.config.stash[CELL_RUN].current.evidence
