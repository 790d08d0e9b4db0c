"""`lab reap` and the machines that somebody works in by hand: the young stay, the old and the forgotten go."""

from __future__ import annotations

import json

from lab.contracts import MachineState
from tests.commands.made import Call, Made

SIM = "sim/thing/pc"


def test_reap_leaves_what_is_up_by_hand(made: Made, call: Call) -> None:
    machine = made.keep(SIM, hours=23)

    status, out, _ = call("reap", made.folder, "--json")

    assert status == 0
    assert [host["destroyed"] for host in json.loads(out)] == [[]] * 4
    assert machine.state() is MachineState.RUNNING


def test_reap_takes_what_is_up_by_hand_for_too_long(made: Made, call: Call) -> None:
    old, young = made.keep(SIM, hours=3), made.keep("no-ssh/thing/pc", hours=1)

    call("reap", made.folder, "--older-than", "2")

    assert (old.state(), young.state()) == (MachineState.GONE, MachineState.RUNNING)
    assert not made.spot(SIM).place.folder.exists()


def test_reap_takes_the_machine_of_a_command_that_was_killed(made: Made, call: Call) -> None:
    machine = made.keep(SIM)
    (made.spot(SIM).place.folder / "up.json").unlink()

    call("reap", made.folder)

    assert machine.state() is MachineState.GONE
