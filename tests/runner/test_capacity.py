"""Capacity: a cell starts only where processors and memory are left, and one always may."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lab import hypervisors
from lab.contracts import Cell
from lab.runner import capacity
from lab.runner.capacity import MACHINE_OVERHEAD_MIB, Capacity

A, B, C = (Cell("here", "g", name) for name in "abc")
FAR_A, FAR_B, FAR_C = (Cell("far", "g", name) for name in "abc")


@pytest.fixture(autouse=True)
def drivers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hypervisors, "load", lambda name: SimpleNamespace(RUNS_HERE=name == "local"))


def lab(*, processors: int = 2, memory_mib: int = 10_000, **host: Any) -> Capacity:
    limits = {"cells_at_once": None, "memory_mib": None, **host}
    inventory: Any = SimpleNamespace(
        hosts={
            "here": SimpleNamespace(name="here", driver="local", **limits),
            "far": SimpleNamespace(name="far", driver="remote", **limits),
        },
        profile_of=lambda cell: SimpleNamespace(memory_mib=512, max_memory_mib=1024 if cell == C else 0),
    )
    return Capacity(inventory, processors, memory_mib)


def started(room: Capacity, *cells: Cell) -> list[Cell]:
    found = []
    for cell in cells:
        if room.fits(cell):
            room.add(cell)
            found.append(cell)
    return found


def test_as_many_cells_run_here_as_there_are_processors() -> None:
    assert started(lab(processors=2), A, B, C) == [A, B]


def test_memory_limits_cells_where_processors_would_not() -> None:
    assert started(lab(processors=8, memory_mib=512 + MACHINE_OVERHEAD_MIB), A, B) == [A]


def test_a_cell_with_a_peer_takes_the_memory_of_two_machines() -> None:
    room = lab(processors=8, memory_mib=3 * (512 + MACHINE_OVERHEAD_MIB) - 1)
    assert room.fits(A, machines=2)
    room.add(A, machines=2)

    assert not room.fits(B)

    room.remove(A)
    room.add(A)
    assert room.fits(B)
    assert not room.fits(B, machines=2)


def test_memory_that_can_be_plugged_in_counts() -> None:
    room = lab(processors=8, memory_mib=512 + 1024 + 2 * MACHINE_OVERHEAD_MIB - 1)

    assert started(room, A, C) == [A]
    assert started(lab(processors=8, memory_mib=512 + 1024 + 2 * MACHINE_OVERHEAD_MIB), A, C) == [A, C]


def test_one_cell_may_always_start() -> None:
    assert started(lab(memory_mib=1), A, B) == [A]


def test_a_cell_that_ended_makes_room() -> None:
    room = lab(processors=1)
    started(room, A)

    room.remove(A)

    assert room.fits(B)


def test_a_host_may_say_how_many_cells_it_takes() -> None:
    assert started(lab(processors=8, cells_at_once=1), A, B) == [A]


def test_a_host_elsewhere_does_not_take_this_machines_processors() -> None:
    assert started(lab(processors=1), A, FAR_A, FAR_B, FAR_C) == [A, FAR_A, FAR_B, FAR_C]


def test_the_memory_of_a_host_elsewhere_is_its_own_limit() -> None:
    assert started(lab(memory_mib=512 + MACHINE_OVERHEAD_MIB), FAR_A, FAR_B) == [FAR_A, FAR_B]


def test_this_machine_is_measured() -> None:
    found = capacity.of_this_machine(lab().inventory)

    assert found.processors >= 1
    assert found.memory_mib > 0
