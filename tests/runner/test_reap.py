"""Reaping: what dead runs left goes, what a living run owns stays, one bad machine does not save the others."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from lab import hypervisors, process
from lab.contracts import Owner
from lab.errors import HostError, HypervisorRefused
from lab.runner import reap

DEAD = Owner("20260101-000000-dead", "h/g/p", 2**22 + 1, 1)


def living() -> Owner:
    return Owner("20260101-000000-beef", "h/g/q", os.getpid(), process.start_time(os.getpid()) or 0)


class Machine:
    def __init__(self, name: str, *, stuck: bool = False) -> None:
        self.name = name
        self.stuck = stuck
        self.gone = False

    def destroy(self) -> None:
        if self.stuck:
            raise HypervisorRefused("it does not end")
        self.gone = True


@pytest.fixture
def host_with(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    def make(*machines: tuple[Owner, Machine]) -> Any:
        @contextmanager
        def connect(name: str, settings: object) -> Iterator[Any]:
            yield SimpleNamespace(machines=lambda: machines)

        monkeypatch.setattr(hypervisors, "load", lambda name: SimpleNamespace(connect=connect))
        return SimpleNamespace(name="h", driver="d", settings=None)

    return make


def test_only_machines_of_dead_runs_are_destroyed(host_with: Callable[..., Any]) -> None:
    dead, alive = Machine("dead"), Machine("alive")

    found = reap.reap_host(host_with((DEAD, dead), (living(), alive)), picks=reap.is_orphan)

    assert (dead.gone, alive.gone) == (True, False)
    assert found == reap.Reaped("h", ("dead",))


def test_a_machine_that_resists_is_told_and_the_next_one_still_goes(host_with: Callable[..., Any]) -> None:
    stuck, other = Machine("stuck", stuck=True), Machine("other")

    found = reap.reap_host(host_with((DEAD, stuck), (DEAD, other)), picks=reap.is_orphan)

    assert other.gone
    assert found == reap.Reaped("h", ("other",), "stuck: it does not end")


def test_a_run_takes_its_own_machines_only(host_with: Callable[..., Any]) -> None:
    own, foreign = Machine("own"), Machine("foreign")
    mine = living()

    reap.reap_host(host_with((mine, own), (DEAD, foreign)), picks=reap.of_run(mine.run))

    assert (own.gone, foreign.gone) == (True, False)


def test_a_cell_takes_its_own_machine_only(host_with: Callable[..., Any]) -> None:
    mine = living()
    sibling = Owner(mine.run, "h/g/other", mine.pid, mine.pid_started)
    own, other = Machine("own"), Machine("other")

    reap.reap_host(host_with((mine, own), (sibling, other)), picks=reap.of_cell(mine.run, mine.cell))

    assert (own.gone, other.gone) == (True, False)


def test_a_reused_process_id_does_not_protect_a_dead_runs_machine() -> None:
    alive = living()

    assert reap.is_orphan(Owner(alive.run, alive.cell, alive.pid, alive.pid_started - 1))


def test_a_host_that_cannot_be_reached_is_a_problem_and_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(name: str, settings: object) -> Any:
        raise HostError("no route")

    monkeypatch.setattr(hypervisors, "load", lambda name: SimpleNamespace(connect=connect))
    host: Any = SimpleNamespace(name="h", driver="d", settings=None)
    inventory: Any = SimpleNamespace(hosts={"h": host})

    assert reap.reap(inventory) == [reap.Reaped("h", (), "no route")]
