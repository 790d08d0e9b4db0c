"""Real guests to work in by hand: they outlive the command, are found from other shells, and go without a trace."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import waiting
from lab.errors import ExitCode

pytestmark = [pytest.mark.minutes, pytest.mark.timeout(900)]


class Shell:
    """Each call is a shell of its own; all of them are of one user."""

    def __init__(self, lab: Any, cell: str) -> None:
        self.lab, self.cell = lab, cell

    def __call__(self, command: str, *more: str) -> tuple[int, str]:
        started = self.lab.start(command, str(self.lab.inventory), self.cell, *more)
        out, _ = started.communicate(timeout=600)
        return started.returncode, out

    def listed(self) -> list[dict[str, Any]]:
        started = self.lab.start("ls", str(self.lab.inventory), "--json")
        out, _ = started.communicate(timeout=120)
        machines: list[dict[str, Any]] = json.loads(out)["machines"]
        return machines


@pytest.fixture(scope="module", params=["qemu/jeos/pc-bios", "uml/jeos/uml"])
def up(request: pytest.FixtureRequest, shared_lab: Any) -> Iterator[Shell]:
    """A cell that was brought up by a command that has ended."""
    shell = Shell(shared_lab, request.param)
    status, out = shell("up")
    assert status == 0, out
    yield shell
    shell("down")


def test_another_shell_gets_in_and_ends_as_the_command_does(up: Shell) -> None:
    assert up("ssh", "--", "cat /proc/sys/kernel/ostype; exit 7") == (7, "Linux\n")


def test_what_is_done_in_one_shell_is_there_in_the_next(up: Shell) -> None:
    up("ssh", "--", "echo mine > /root/mine")

    assert up("ssh", "--", "cat", "/root/mine") == (0, "mine\n")


def test_bringing_it_up_again_leaves_it_alone(up: Shell) -> None:
    _, before = up("ssh", "--", "cat /proc/sys/kernel/random/boot_id")

    status, said = up("up")

    assert status == 0
    assert said.startswith(f"{up.cell} is up already, since ")
    assert up("ssh", "--", "cat /proc/sys/kernel/random/boot_id") == (0, before)


def test_it_is_listed_with_the_way_in(up: Shell) -> None:
    (found,) = up.listed()

    assert (found["cell"], found["whose"], found["state"]) == (up.cell, "by hand", "running")
    assert found["command"] == f"lab ssh {up.lab.inventory} {up.cell}"


def test_the_console_is_that_of_its_boot(up: Shell) -> None:
    status, said = up("console")

    assert status == 0
    assert "Linux version " in said


def test_a_host_key_that_the_lab_did_not_give_is_refused(up: Shell) -> None:
    (known,) = up.lab.place.rglob("known_hosts")
    right = known.read_text()
    name, kind, key = right.split()
    known.write_text(f"{name} {kind} {key[:30]}{'A' * 8}{key[38:]}\n")
    try:
        status, said = up("ssh", "--", "true")
    finally:
        known.write_text(right)

    assert status == 255
    assert "Host key verification failed." in said


def test_reaping_leaves_it_alone_until_it_is_old(up: Shell) -> None:
    reaping = up.lab.start("reap", str(up.lab.inventory))
    reaping.communicate(timeout=120)

    assert [found["whose"] for found in up.listed()] == ["by hand"]


def test_a_picture_where_there_is_a_display_and_a_reason_where_there_is_none(up: Shell, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"

    status, said = up("screenshot", "--out", str(picture))

    if up.cell.startswith("uml/"):
        assert (status, picture.exists()) == (ExitCode.USAGE, False)
        assert "has no screenshot: User-Mode Linux has no display" in said
    else:
        assert status == 0
        assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_putting_it_away_leaves_no_process_and_no_file(lab: Any) -> None:
    shell = Shell(lab, "uml/jeos/uml")
    status, out = shell("up")
    assert status == 0, out

    assert shell("down") == (0, "uml/jeos/uml is down\n")

    waiting.until(lambda: not lab.processes(), what="its processes to end", timeout_s=120)
    assert lab.machine_files() == []
    assert list(lab.place.rglob("up.json")) == []


def test_a_guest_that_is_powered_off_starts_again_with_its_disks_and_its_identity(lab: Any) -> None:
    shell = Shell(lab, "uml/jeos/uml")
    assert shell("up")[0] == 0
    assert shell("ssh", "--", "echo mine > /root/mine; sync")[0] == 0
    shell("ssh", "--", "poweroff")  # which may end the session before it tells how the command ended
    waiting.until(lambda: shell.listed()[0]["state"] != "running", what="the guest to power off", timeout_s=120)

    refused, said = shell("ssh", "--", "true")
    status, _ = shell("up")

    assert (refused, "is powered off" in said) == (ExitCode.USAGE, True)
    assert status == 0
    assert shell("ssh", "--", "cat", "/root/mine") == (0, "mine\n")


def test_a_command_killed_while_it_brings_a_cell_up_leaves_a_machine_that_is_reaped(lab: Any) -> None:
    shell = Shell(lab, "qemu/jeos/pc-bios")
    starting = lab.start("up", "--cold", str(lab.inventory), shell.cell)
    waiting.until(lambda: any("qemu-system" in each for each in lab.processes()), what="QEMU", timeout_s=180)
    (coming,) = shell.listed()

    starting.send_signal(signal.SIGKILL)
    starting.wait()
    (left,) = shell.listed()
    reaping = lab.start("reap", str(lab.inventory))
    reaping.communicate(timeout=120)

    assert (coming["whose"], left["whose"]) == ("by hand, coming up", "left over")
    assert lab.machine_files() == []
    waiting.until(lambda: not lab.processes(), what="its processes to end", timeout_s=120)


def test_asking_the_command_to_end_while_a_cell_comes_up_undoes_it(lab: Any) -> None:
    starting = lab.start("up", "--cold", str(lab.inventory), "qemu/jeos/pc-bios")
    waiting.until(lambda: any("qemu-system" in each for each in lab.processes()), what="QEMU", timeout_s=180)

    starting.terminate()
    out, _ = starting.communicate(timeout=180)

    assert starting.returncode == ExitCode.INTERRUPTED, out
    assert lab.machine_files() == []
    assert list(lab.place.rglob("up.json")) == []
