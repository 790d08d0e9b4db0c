"""Checks: fifty trivial ones in a cell beside a shell script, and what one more costs beside bare pytest.

    python benchmarks/checks_cost.py

The guest is up. The lab's side is what a cell does from there: it connects, starts pytest's session from what the
server that cells fork from holds ready, collects, runs, and writes a record for each check. The shell script opens
one OpenSSH connection (ControlMaster) and runs the same commands through it. Bare pytest keeps one connection in a
fixture and runs the same commands, each in a channel of its own.
"""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import bring_up, place, spent, ssh_server  # noqa: E402 - also run as a file
from benchmarks.row import Row  # noqa: E402
from benchmarks.ssh_server import Door  # noqa: E402
from lab import pytest_plugin  # noqa: E402
from lab.checking import prepared  # noqa: E402
from lab.contracts import Cell, Realness  # noqa: E402
from lab.guests.channels import ssh  # noqa: E402
from lab.guests.guest import Guest  # noqa: E402
from lab.inventory.load import load  # noqa: E402
from lab.results.record import Outcome, Record  # noqa: E402

FIFTY, FIFTY_LIMIT = 50, 1.15
FEW, MANY, ONE_LIMIT_MS = 50, 250, 15.0
ROUNDS = 5


def measure() -> list[Row]:
    """Fifty checks in an emulated guest and over loopback; one more over loopback."""
    with tempfile.TemporaryDirectory(prefix="lab-benchmark-") as name:
        folder = Path(name)
        with ssh_server.native(folder) as door:
            rows = [_one_more(folder, door), _fifty(folder, door, "a native sshd on loopback")]
        with bring_up.session(load(bring_up.INVENTORY), folder) as opened:
            opened.guest(cold=False).close()  # a fork would share its connection
            login = opened.login
            if login is None:
                raise spent.Failed("the guest has no login")
            (machine,) = opened.machines
            door = Door(machine.endpoint(22), login)
            rows.insert(0, _fifty(folder, door, f"`{bring_up.CELL}`, up"))
    return rows


def _fifty(folder: Path, door: Door, where: str) -> Row:
    lab = Checks(Path(tempfile.mkdtemp(dir=folder)), FIFTY, door)
    taken = spent.in_turns({"lab": lab.in_cell, "shell": lambda: in_shell(folder, door)}, ROUNDS, budget_s=60.0)
    ours, theirs = spent.median(taken["lab"]), spent.median(taken["shell"])
    ratio = spent.ratio(taken["lab"], taken["shell"]).wall_s
    return Row(
        f"{FIFTY} trivial checks in a cell on {where}",
        f"{ours.wall_s:.2f} s, of processors here {ours.cpu_s:.2f} s",
        f"{ratio:.2f} x a shell script over one ControlMaster ({theirs.wall_s:.2f} s)",
        f"{FIFTY_LIMIT:g} x",
        ratio <= FIFTY_LIMIT,
    )


def _one_more(folder: Path, door: Door) -> Row:
    checks = {count: Checks(Path(tempfile.mkdtemp(dir=folder)), count, door) for count in (FEW, MANY)}
    sides: dict[str, Callable[[], spent.Spent]] = {f"lab {count}": each.in_cell for count, each in checks.items()}
    sides |= {f"pytest {count}": lambda count=count: in_pytest(folder, door, count) for count in (FEW, MANY)}  # type: ignore[misc]
    taken = spent.in_turns(sides, ROUNDS, budget_s=60.0)
    ours_ms, theirs_ms = (_slope_ms(taken[f"{side} {FEW}"], taken[f"{side} {MANY}"]) for side in ("lab", "pytest"))
    if ours_ms <= 0 or theirs_ms <= 0:
        raise spent.Failed(f"{MANY} checks took no longer than {FEW}: the machine is too busy to tell")
    return Row(
        "one more trivial check, a native sshd on loopback",
        f"{ours_ms:.1f} ms",
        f"{ours_ms / theirs_ms:.2f} x bare pytest with one kept connection ({theirs_ms:.1f} ms)",
        f"{ONE_LIMIT_MS:g} ms",
        ours_ms <= ONE_LIMIT_MS,
    )


def _slope_ms(few: list[spent.Spent], many: list[spent.Spent]) -> float:
    return (spent.median(many).wall_s - spent.median(few).wall_s) / (MANY - FEW) * 1000


# ---------------------------------------------------------------------------------------------------------
# The lab


class _Session:
    """What the checks see of a cell: a guest that is up behind a door."""

    cell: Cell = bring_up.CELL
    realness: Realness = Realness.REAL
    is_warm: bool = True
    emulates_virtualisation: bool = False
    machines: tuple[Any, ...] = ()

    def __init__(self, guest: Guest, directory: Path) -> None:
        self._guest, self.directory = guest, directory
        self.host = SimpleNamespace(driver="qemu")
        self.entry = SimpleNamespace(family="linux", channel=SimpleNamespace(port=22))
        self.hypervisor = SimpleNamespace(limits=dict)

    def guest(self, *, cold: bool) -> Guest:
        return self._guest

    def peer(self) -> Guest:
        raise spent.Failed("no check here has a second guest")

    def put_away(self) -> None:
        raise spent.Failed("a check of this benchmark did not pass")


class Checks:
    """Trivial checks of a cell: each runs one command and looks at what it says."""

    def __init__(self, folder: Path, count: int, door: Door) -> None:
        self._folder, self._count, self._door = folder, count, door
        self._ids = place.suites(folder, checks=count, fixture="guest", body='assert guest.check("echo", "1") == "1"')
        self._suites = folder / "suites"

    def in_cell(self) -> spent.Spent:
        """Connect and run them all in a fork, as a cell's process does; all of them must pass."""
        directory = Path(tempfile.mkdtemp(dir=self._folder))
        prepared.ahead(self._suites)
        taken = spent.forked(lambda: self._run(directory))
        records = [Record.parse(line) for line in (directory / "records.jsonl").read_bytes().splitlines()]
        if [record.outcome for record in records] != [Outcome.PASSED] * self._count:
            raise spent.Failed(f"of {self._count} checks these were measured: {records[:3]} ...")
        return taken

    def _run(self, directory: Path) -> float:
        start = time.perf_counter()
        channel = ssh.connect(self._door.endpoint, self._door.login, timeout_s=60)
        host: Any = SimpleNamespace(name="machine")
        guest = Guest(cell=bring_up.CELL, hypervisor=host, machine=host, channel=channel, family="linux")
        session: Any = _Session(guest, directory)
        pytest_plugin.run_checks(
            session, self._ids, run="benchmark", attempt=1, suites=self._suites, progress=lambda check: None
        )
        guest.close()
        return time.perf_counter() - start


# ---------------------------------------------------------------------------------------------------------
# The others


def in_shell(folder: Path, door: Door) -> spent.Spent:
    """The same commands through one OpenSSH connection, as a shell script does it."""
    here = Path(tempfile.mkdtemp(dir=folder))
    socket = ["-o", f"ControlPath={here}/m"]
    master = shlex.join(["ssh", *door.options(), *socket, "-o", "ControlMaster=yes", "-fN", door.address])
    one = shlex.join(["ssh", *door.options(), *socket, door.address, "echo", "1"])
    leave = shlex.join(["ssh", *door.options(), *socket, "-O", "exit", door.address])
    script = here / "fifty.sh"
    loop = f'n=0; while [ $n -lt {FIFTY} ]; do [ "$({one})" = 1 ]; n=$((n + 1)); done'
    script.write_text(f"set -e\n{master}\n{loop}\n{leave}\n")
    return spent.on(["/bin/sh", str(script)], cwd=here)


def in_pytest(folder: Path, door: Door, count: int) -> spent.Spent:
    """Bare pytest in a process of its own: one connection in a fixture, one command in each test."""
    here = Path(tempfile.mkdtemp(dir=folder))
    (here / "conftest.py").write_text(
        textwrap.dedent(
            f"""
            import paramiko, pytest, socket

            @pytest.fixture(scope="session")
            def run():
                sock = socket.create_connection(("127.0.0.1", {door.endpoint.port}))
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                transport = paramiko.Transport(sock)
                transport.start_client()
                key = paramiko.Ed25519Key.from_private_key_file({str(door.login.private_key)!r})
                transport.auth_publickey({door.login.user!r}, key)

                def one(command):
                    channel = transport.open_session()
                    channel.exec_command(command)
                    out = channel.makefile("rb").read()
                    assert channel.recv_exit_status() == 0
                    return out

                yield one
                transport.close()
            """
        )
    )
    tests = [f'def test_{number}(run):\n    assert run("echo 1") == b"1\\n"\n' for number in range(count)]
    (here / "test_all.py").write_text("\n".join(tests))
    words = [sys.executable, "-m", "pytest", "-q", "--disable-plugin-autoload", "-p", "no:cacheprovider"]
    return spent.on([*words, "-c", os.devnull, f"--rootdir={here}", str(here)], cwd=here)


if __name__ == "__main__":
    for row in measure():
        print(*row.cells(), sep="  ")
