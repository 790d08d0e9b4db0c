"""`lab up`: what becomes of the machine and of what is known of it, with a session that only pretends to be one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from lab.contracts import Machine, MachineState, SshLogin
from lab.errors import ExitCode, LabDiskFull
from lab.runner import by_hand
from lab.runner.kept import Document, Place
from tests.commands.made import Call, Made

SIM = "sim/thing/pc"


def test_what_a_killed_command_left_is_gone_before_the_cell_comes_up_again(
    made: Made, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = made.keep(SIM)
    (made.spot(SIM).place.folder / "up.json").unlink()
    states = []

    def stopped(*words: object, **more: object) -> None:
        states.append(machine.state())
        raise KeyboardInterrupt

    monkeypatch.setattr(by_hand, "open_session", stopped)
    status, _, _ = call("up", made.folder, SIM)

    assert states == [MachineState.GONE]
    assert status == ExitCode.INTERRUPTED
    assert not made.spot(SIM).place.folder.exists()


class Session:
    """Stands for a session of bring-up whose guest answers: a simulated machine, and who was told what."""

    is_warm = True
    login = SshLogin("admin", Path("/key"), "ssh-ed25519 BBBB")
    entry = SimpleNamespace(channel=SimpleNamespace(port=2222))

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.asked_cold: list[bool] = []
        self.was_let_go = False

    def guest(self, *, cold: bool) -> None:
        self.asked_cold.append(cold)

    def let_go(self) -> None:
        self.was_let_go = True


@pytest.fixture
def session(made: Made, monkeypatch: pytest.MonkeyPatch) -> Session:
    """What the next `lab up` gets in place of a session with a real guest."""
    machine = made.keep(SIM)
    made.spot(SIM).place.clear()
    given = Session(machine)

    @contextmanager
    def opened(*words: object, **more: object) -> Iterator[Session]:
        try:
            yield given
        finally:
            if not given.was_let_go:
                machine.destroy()

    monkeypatch.setattr(by_hand, "open_session", opened)
    # The machine is there before the session here, and is not a killed command's.
    monkeypatch.setattr(by_hand, "_destroy", lambda at: False)
    return given


@pytest.mark.parametrize(("words", "cold"), [((), False), (("--cold",), True)])
def test_a_cell_that_came_up_is_left_up_with_the_identity_that_it_got(
    made: Made, call: Call, session: Session, words: tuple[str, ...], cold: bool
) -> None:
    status, out, _ = call("up", made.folder, SIM, "--json", *words)

    told = json.loads(out)
    place = made.spot(SIM).place
    assert status == 0
    assert (told["how"], told["user"], told["port"], told["machine"]) == (
        "restored",
        "admin",
        2222,
        session.machine.name,
    )
    assert place.known_hosts.read_text() == f"{session.machine.name} ssh-ed25519 BBBB\n"
    assert session.asked_cold == [cold]
    assert session.machine.state() is MachineState.RUNNING


def test_a_cell_that_cannot_be_written_down_is_not_left_up(
    made: Made, call: Call, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(place: Place, document: Document) -> None:
        raise LabDiskFull("no space left on this machine")

    monkeypatch.setattr(Place, "write", full)

    status, _, err = call("up", "-q", made.folder, SIM)

    assert (status, err) == (ExitCode.LAB_AT_FAULT, "lab: no space left on this machine\n")
    assert session.machine.state() is MachineState.GONE
    assert not made.spot(SIM).place.folder.exists()
