"""`lab up`, `ssh`, `console`, `screenshot`, `down`, `ls`: what they say and how they end, on simulated hosts."""

from __future__ import annotations

import json
import os
import socket
import threading
from pathlib import Path

import pytest

from lab.contracts import Capability, Endpoint, MachineState
from lab.errors import ExitCode
from lab.hypervisors import simulated
from lab.hypervisors._simulated_machine import SimulatedMachine
from lab.runner import by_hand
from tests.commands.made import Call, Made

SIM = "sim/thing/pc"
Limits = dict[Capability, str]


# -- what is not up ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("ssh",), ("console",), ("screenshot", "--out", "x.png")])
def test_a_cell_that_is_not_up_says_how_to_bring_it_up(made: Made, call: Call, command: tuple[str, ...]) -> None:
    status, out, err = call(*command, made.folder, SIM)

    assert (status, out) == (ExitCode.USAGE, "")
    assert err == f"lab: {SIM} is not up\n  -> lab up {made.folder} {SIM}\n"


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("sin/thing/pc", 'sin/thing/pc: there is no host "sin"\n  -> known: sim, panic, no-ssh, vanishes'),
        ("sim/think/pc", 'sim/think/pc: there is no guest "think"\n  -> known: thing'),
        ("sim/thing/pv", 'sim/thing/pv: there is no profile "pv"\n  -> known: pc, e1000e'),
        ("sim/thing", "'sim/thing' is not a cell\n  -> a cell is written HOST/GUEST/PROFILE"),
    ],
)
def test_a_cell_that_is_not_in_the_inventory_says_what_there_is(made: Made, call: Call, cell: str, said: str) -> None:
    assert call("up", made.folder, cell) == (ExitCode.USAGE, "", f"lab: {said}\n")


def test_hardware_that_the_guest_has_no_driver_for_is_refused_before_anything_is_made(made: Made, call: Call) -> None:
    status, _, err = call("up", made.folder, "sim/thing/e1000e")

    assert status == ExitCode.USAGE
    assert err == ("lab: sim/thing/e1000e cannot be brought up: thing has no driver for the network card e1000e\n")


def test_a_simulated_cell_has_no_guest_to_work_in(made: Made, call: Call, tmp_path: Path) -> None:
    status, out, err = call("up", "-q", made.folder, SIM)

    assert (status, out) == (ExitCode.USAGE, "")
    assert err.startswith(f"lab: {SIM} cannot be worked in: ")
    assert list((tmp_path / "state").rglob("machine.json")) == []
    assert not made.spot(SIM).place.folder.exists()


def test_a_guest_that_panics_leaves_its_console_to_read_and_no_machine(made: Made, call: Call, tmp_path: Path) -> None:
    status, _, err = call("up", "-q", made.folder, "panic/thing/pc")

    kept = made.spot("panic/thing/pc").place.folder / "console.log"
    assert status == ExitCode.PRODUCT_FAILED
    assert err.rstrip().endswith(f"-> all of its console: {kept}")
    assert b"Kernel panic" in kept.read_bytes()
    assert list((tmp_path / "state").rglob("machine.json")) == []


def test_putting_away_what_is_not_up_is_no_error(made: Made, call: Call) -> None:
    assert call("down", made.folder, SIM) == (0, f"{SIM} was not up\n", "")


def test_nothing_up_says_how_to_bring_something_up(made: Made, call: Call) -> None:
    assert call("ls", made.folder) == (0, "no machine is up; lab up INVENTORY CELL brings one up\n", "")


# -- what is up ----------------------------------------------------------------------------------------------


def test_a_cell_that_is_up_is_left_alone(made: Made, call: Call) -> None:
    machine = made.keep(SIM)

    status, out, err = call("up", made.folder, SIM)

    first, *rest = out.splitlines()
    assert (status, err) == (0, "")
    assert first.startswith(f"{SIM} is up already, since ")
    assert rest == [
        f"  a shell:     lab ssh {made.folder} {SIM}",
        f"  a command:   lab ssh {made.folder} {SIM} -- uname -a",
        f"  its console: lab console {made.folder} {SIM} --follow",
        f"  put it away: lab down {made.folder} {SIM}",
    ]
    assert machine.state() is MachineState.RUNNING


def test_up_as_json_is_one_document(made: Made, call: Call) -> None:
    made.keep(SIM)

    _, out, _ = call("up", made.folder, SIM, "--json")

    told = json.loads(out)
    assert (told["cell"], told["how"], told["host_key"]) == (SIM, "already", "ssh-ed25519 AAAA")
    assert {"schema", "machine", "user", "port", "since", "inventory"} <= told.keys()


def test_ls_finds_what_is_up_without_being_told_the_inventory(made: Made, call: Call) -> None:
    made.keep(SIM)

    status, out, _ = call("ls")

    assert status == 0
    assert f"{SIM}   running   by hand" in out
    assert f"lab ssh lab {SIM}\n" in out


def test_ls_as_json_is_one_document(made: Made, call: Call) -> None:
    made.keep(SIM)

    _, out, _ = call("ls", made.folder, "--json")

    (listed,) = json.loads(out)["machines"]
    assert (listed["cell"], listed["whose"], listed["state"], listed["memory_mib"]) == (SIM, "by hand", "running", 64)


def test_down_leaves_nothing(made: Made, call: Call, tmp_path: Path) -> None:
    made.keep(SIM)

    status, out, _ = call("down", made.folder, SIM)

    assert (status, out) == (0, f"{SIM} is down\n")
    assert list((tmp_path / "state").rglob("machine.json")) == []
    assert not made.spot(SIM).place.folder.exists()


def test_down_takes_only_its_own_cell(made: Made, call: Call) -> None:
    made.keep(SIM)
    other = made.keep("no-ssh/thing/pc")

    call("down", made.folder, SIM)

    assert other.state() is MachineState.RUNNING


def test_the_console_is_shown_without_what_deceives_a_terminal(made: Made, call_apart: Call) -> None:
    machine = made.keep(SIM)
    (console,) = Path(os.environ["XDG_STATE_HOME"]).rglob("console")
    console.write_bytes(machine.console() + b"\x1b]0;owned\x07\x1b[31mred\x9b\0\n")

    status, out, err = call_apart("console", made.folder, SIM)

    assert (status, err) == (0, "")
    assert out.endswith("This console is simulated: there is no guest.\nred�<00>\n")


@pytest.mark.parametrize(
    ("limits", "why"),
    [({Capability.SCREENSHOTS: "it has no display"}, "it has no display"), ({}, "the driver simulated takes none")],
)
def test_a_host_without_a_display_says_so_and_writes_nothing(
    made: Made, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: Limits, why: str
) -> None:
    made.keep(SIM)
    monkeypatch.setattr(simulated.SimulatedHost, "limits", lambda host: limits)

    status, out, err = call("screenshot", made.folder, SIM, "--out", tmp_path / "x.png")

    assert (status, out) == (ExitCode.USAGE, "")
    assert err == f"lab: {SIM} has no screenshot: {why}\n  -> lab console {made.folder} {SIM}\n"
    assert not (tmp_path / "x.png").exists()


# -- OpenSSH -------------------------------------------------------------------------------------------------


@pytest.fixture
def fake_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for OpenSSH: writes its words down, one a line, and ends with 7."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "ssh"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{tmp_path}/words\nexit 7\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return tmp_path / "words"


def test_ssh_pins_the_host_key_and_ends_as_the_command_does(made: Made, call_apart: Call, fake_ssh: Path) -> None:
    machine = made.keep("no-ssh/thing/pc")

    status, _, err = call_apart("ssh", made.folder, "no-ssh/thing/pc", "--", "ls", "-l", "*.txt")

    words = fake_ssh.read_text().splitlines()
    options = {word.partition("=")[0]: word.partition("=")[2].strip('"') for word in words if "=" in word}
    place = made.spot("no-ssh/thing/pc").place
    assert (status, err) == (7, "")
    assert words[:2] == ["-F", "/dev/null"]
    assert words[-4:] == ["root@127.0.0.1", "ls", "-l", "*.txt"]
    assert options["StrictHostKeyChecking"] == "yes"
    assert options["HostKeyAlias"] == machine.name
    assert Path(options["UserKnownHostsFile"]) == place.known_hosts
    assert options["GlobalKnownHostsFile"] == "/dev/null"
    assert options["IdentitiesOnly"] == "yes"
    assert Path(options["IdentityFile"]).stat().st_mode & 0o077 == 0


def test_ssh_gives_a_terminal_when_asked(made: Made, call_apart: Call, fake_ssh: Path) -> None:
    made.keep("no-ssh/thing/pc")

    call_apart("ssh", "-t", made.folder, "no-ssh/thing/pc", "--", "top")

    assert "-t" in fake_ssh.read_text().splitlines()


# -- what died meanwhile -------------------------------------------------------------------------------------


def test_a_guest_that_panicked_meanwhile_says_its_last_words_and_whose_fault_it_is(made: Made, call: Call) -> None:
    cell = "panic/thing/pc"
    made.keep(cell)

    status, _, err = call("ssh", made.folder, cell)

    assert status == ExitCode.PRODUCT_FAILED
    assert err == (
        f"lab: {cell} has died: kernel panic: Attempted to kill init! exitcode=0x0000000b (blame: guest); "
        "its console's last lines:\n"
        "  | This console is simulated: there is no guest.\n"
        "  | Linux version 6.1.0 (simulated)\n"
        "  | Run /sbin/init as init process\n"
        "  | Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b\n"
        f"  -> lab console {made.folder} {cell} shows all of it; lab down {made.folder} {cell} puts it away\n"
    )


@pytest.fixture
def forged(made: Made) -> Made:
    """A running guest, one of whose programs has written a kernel's last words to the console."""
    made.keep("no-ssh/thing/pc")
    (console,) = Path(os.environ["XDG_STATE_HOME"]).rglob("console")
    with console.open("ab") as file:
        file.write(b"[    1.000000] Linux version 6.1.0\n[   99.000000] Kernel panic - not syncing: forged\n")
    return made


def test_a_panic_that_only_the_console_claims_locks_nobody_out_of_a_guest_that_greets(
    forged: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = forged.spot("no-ssh/thing/pc")
    with socket.create_server(("127.0.0.1", 0)) as server:
        greeting = threading.Thread(target=lambda: server.accept()[0].sendall(b"SSH-2.0-lives\r\n"), daemon=True)
        greeting.start()
        answers = Endpoint("127.0.0.1", server.getsockname()[1])
        monkeypatch.setattr(SimulatedMachine, "endpoint", lambda machine, port: answers)
        with by_hand.found(at) as it:
            by_hand.require_well(at, it)


def test_a_panic_that_only_the_console_claims_is_believed_of_a_guest_that_is_silent(forged: Made, call: Call) -> None:
    status, _, err = call("ssh", forged.folder, "no-ssh/thing/pc")

    assert status == ExitCode.PRODUCT_FAILED
    assert err.startswith("lab: no-ssh/thing/pc has died: kernel panic: forged (blame: ")


def test_a_machine_that_ended_unasked_says_its_last_words(made: Made, call: Call) -> None:
    cell = "vanishes/thing/pc"
    made.keep(cell)

    status, _, err = call("up", made.folder, cell)

    assert status == ExitCode.LAB_AT_FAULT
    assert err.startswith(f"lab: the machine of {cell} ended unasked; its console's last lines:\n  | ")


def test_a_machine_that_somebody_destroyed_is_told_and_can_be_forgotten(made: Made, call: Call) -> None:
    made.keep(SIM).destroy()

    status, _, err = call("ssh", made.folder, SIM)
    after, out, _ = call("down", made.folder, SIM)

    assert status == ExitCode.LAB_AT_FAULT
    assert err == (
        f"lab: the machine of {SIM} is not on sim any more: somebody destroyed it\n"
        f"  -> lab down {made.folder} {SIM} forgets it\n"
    )
    assert (after, out) == (0, f"{SIM} is down\n")


def test_a_guest_that_was_powered_off_says_how_to_start_it(made: Made, call: Call) -> None:
    made.keep(SIM).stop()

    status, _, err = call("ssh", made.folder, SIM)

    assert status == ExitCode.USAGE
    assert err == f"lab: {SIM} is powered off\n  -> lab up {made.folder} {SIM} starts it again\n"


def test_a_paused_machine_is_not_waited_for(made: Made, call: Call) -> None:
    made.keep(SIM).pause()

    status, _, err = call("ssh", made.folder, SIM)

    assert status == ExitCode.USAGE
    assert err.startswith(f"lab: {SIM} is paused\n")
