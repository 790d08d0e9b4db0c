"""Tables on a terminal: names stay whole, and nothing that a guest or a host says reaches it as a command."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from lab import tables
from lab.contracts import MachineState
from lab.runner.doctor import Finding, Health
from lab.runner.listing import Listed, Listing

HOSTILE = "a\x1b]0;owned\x07\x9b31mb\u202ec"


def shown(width: int = 80) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=False)


def said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def machine(cell: str) -> Listed:
    return Listed(cell, "h", "m", "run x", MachineState.RUNNING, None, 64, None, "")


def test_a_name_is_not_broken_where_it_would_have_to_be_copied() -> None:
    console = shown(40)

    tables.rows(console, [{"cell": "qemu/debian-12/q35-vmxnet3-pvscsi", "why": "a long reason " * 5}])

    assert "qemu/debian-12/q35-vmxnet3-pvscsi" in said(console)


@pytest.mark.parametrize(
    "draw",
    [
        lambda console: tables.rows(console, [{"name": HOSTILE}]),
        lambda console: tables.facts(console, {HOSTILE: HOSTILE}),
        lambda console: tables.machines(console, Listing((machine(HOSTILE),), (HOSTILE,))),
        lambda console: tables.findings(console, [Finding("host", Health.BAD, HOSTILE, HOSTILE)]),
        lambda console: tables.diff(console, {"fixed": [{"cell": HOSTILE, "feature": "f", "check": "c"}]}),
    ],
)
def test_what_others_say_cannot_command_the_terminal(draw: object) -> None:
    console = shown(200)

    assert callable(draw)
    draw(console)

    assert set(said(console)) & set("\x1b\x07\x9b\u202e") == set()
    assert "<1B>" in said(console)


@pytest.mark.parametrize(
    ("healths", "sentence"),
    [
        ((Health.GOOD,), "Everything that was looked at works.\n"),
        ((Health.GOOD, Health.POOR), "1 poor: works, slower or with less.\n"),
        ((Health.BAD, Health.BAD, Health.POOR), "2 bad: does not work. 1 poor: works, slower or with less.\n"),
    ],
)
def test_the_doctor_sums_up_what_it_found(healths: tuple[Health, ...], sentence: str) -> None:
    console = shown()

    tables.findings(console, [Finding("x", health, "y") for health in healths])

    assert said(console).endswith(sentence)
