"""Bringing a guest up: a restored copy, and a cold boot, each beside a script that does the same by hand.

    python benchmarks/bring_up.py

The script has QEMU's command line from the lab's own `reproduce.txt`, makes the disks with qemu-img, restores the
same saved memory (or boots), and asks OpenSSH until a first command is answered. The lab's side ends with the same
answer; it checks what it restores, gives the guest an identity, a clock and entropy of its own, and logs in again.
Facts, which the script does not gather, are left out on both sides.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import spent  # noqa: E402 - also run as a file
from benchmarks.row import Row  # noqa: E402
from benchmarks.ssh_server import Door, free_port  # noqa: E402
from lab import locations, process  # noqa: E402
from lab.contracts import Cell, ClonesWarm, Endpoint, Machine, Owner, SshLogin  # noqa: E402
from lab.guests.guest import Guest  # noqa: E402
from lab.guests.identity import Identity  # noqa: E402
from lab.inventory.load import load  # noqa: E402
from lab.inventory.models import Inventory  # noqa: E402
from lab.provisioning import keys, seed  # noqa: E402
from lab.provisioning.bring_up import CellSession, open_session  # noqa: E402
from lab.provisioning.first_login_warm import Kept  # noqa: E402

INVENTORY = ROOT / "inventories/local"
CELL = Cell.parse("qemu/jeos/pc-bios")
WARM_LIMIT, COLD_LIMIT = 1.5, 1.05
WARM_ROUNDS, COLD_ROUNDS = 7, 3
_SSH_TRIES_S = 240
# The saved machine stood still when it was saved, and so does what is made from it until QEMU is told otherwise.
_GO_ON = """
import json, socket, time
monitor = socket.socket(socket.AF_UNIX)
while monitor.connect_ex("qmp.sock"):
    time.sleep(0.01)
lines = monitor.makefile("rw")
def ask(command):
    print(json.dumps({"execute": command}), file=lines, flush=True)
    while "return" not in (answer := json.loads(lines.readline())):
        pass
    return answer["return"]
lines.readline()
ask("qmp_capabilities")
while ask("query-status")["status"] == "inmigrate":
    time.sleep(0.01)
ask("cont")
"""


def measure() -> list[Row]:
    """Both ways of bringing a guest up."""
    with tempfile.TemporaryDirectory(prefix="lab-benchmark-") as name:
        folder = Path(name)
        inventory = load(INVENTORY)
        by_hand = learnt(inventory, folder)
        warm = spent.in_turns(
            {"lab": lambda: _lab(inventory, folder, cold=False), "hand": lambda: _by_hand(by_hand, folder, cold=False)},
            WARM_ROUNDS,
            budget_s=70.0,
        )
        cold = spent.in_turns(
            {"lab": lambda: _lab(inventory, folder, cold=True), "hand": lambda: _by_hand(by_hand, folder, cold=True)},
            COLD_ROUNDS,
            budget_s=60.0,
        )
    return [
        _row("a restored guest to its first answer", warm, WARM_LIMIT),
        _row("a cold boot to the first answer", cold, COLD_LIMIT),
    ]


def _row(what: str, taken: dict[str, list[spent.Spent]], limit: float) -> Row:
    ours, ratio = spent.median(taken["lab"]), spent.ratio(taken["lab"], taken["hand"])
    theirs = spent.median(taken["hand"])
    return Row(
        f"{what} (`{CELL}`, {len(taken['lab'])} rounds)",
        f"{ours.wall_s:.2f} s, of processors {ours.cpu_s:.2f} s",
        f"{ratio.wall_s:.2f} x by hand ({theirs.wall_s:.2f} s); of processors {ratio.cpu_s:.2f} x",
        f"{limit:g} x",
        ratio.wall_s <= limit,
    )


# ---------------------------------------------------------------------------------------------------------
# The lab


@contextmanager
def session(inventory: Inventory, folder: Path) -> Iterator[CellSession]:
    """An open session of the cell, as a cell's process has it: the inventory is read once for a run and given to it."""
    directory = Path(tempfile.mkdtemp(dir=folder))
    run = f"benchmark-{os.getpid()}-{time.monotonic_ns()}"
    owner = Owner(run, CELL.name, os.getpid(), process.start_time(os.getpid()) or 0)
    with open_session(inventory, CELL, owner=owner, directory=directory, progress=lambda phase: None) as opened:
        yield opened


def _lab(inventory: Inventory, folder: Path, *, cold: bool) -> spent.Spent:
    def work() -> float:
        start = time.perf_counter()
        with session(inventory, folder) as opened:
            opened.use_warm = not cold
            guest = brought_up(opened, cold=cold)
            guest.check("true")
            return time.perf_counter() - start

    return spent.forked(work)


def brought_up(opened: CellSession, *, cold: bool) -> Guest:
    """The guest without its facts. Raises `spent.Failed` when it came up in another way than was to be measured."""
    current = opened._current = opened._bring_up(cold=cold)
    if current.warm is cold:
        raise spent.Failed(f"{CELL} came up {'warm' if current.warm else 'cold'}: the other was to be measured")
    return current.guest


# ---------------------------------------------------------------------------------------------------------
# By hand


@dataclass(frozen=True)
class ByHand:
    """What a person who does it by hand knows."""

    line: str  # QEMU's command line, for the shell
    disks: tuple[str, ...]  # commands that make the disks of a cold machine
    lab_folder: str  # the machine's folder, as it stands in both
    saved: Path  # the folder of the saved machine
    identity: Identity  # of the saved machine


def learnt(inventory: Inventory, folder: Path) -> ByHand:
    """Take the command line from a machine of the lab, which also saves one when there is none yet."""
    with session(inventory, folder) as opened:
        opened.guest(cold=False)
        if not opened.is_warm:
            opened.put_away()
            opened.guest(cold=False)
        (machine,) = opened.machines
        clones = opened.hypervisor
        if not isinstance(clones, ClonesWarm) or not opened.is_warm:
            raise spent.Failed(f"{CELL} saved no machine")
        key = clones.warm_key(machine.spec)
        kept = Kept.from_bytes(clones.warm_identity(key))
        return _parsed(machine, locations.cache() / "warm/qemu" / key, kept.identity)


def _parsed(machine: Machine, saved: Path, identity: Identity) -> ByHand:
    script = [line for line in machine.reproduce().replace(" \\\n  ", " ").splitlines() if not line.startswith("#")]
    if not script or "qemu-system" not in script[-1] or "hostfwd=tcp:127.0.0.1:" not in script[-1]:
        raise spent.Failed("reproduce.txt does not end with a line of QEMU's that forwards a port")
    lab_folder = shlex.split(script[0])[2]
    disks = tuple(line for line in script[1:-1] if line.startswith("qemu-img"))
    return ByHand(script[-1], disks, lab_folder, saved, identity)


def _by_hand(known: ByHand, folder: Path, *, cold: bool) -> spent.Spent:
    here = Path(tempfile.mkdtemp(dir=folder))
    port = free_port()
    identity = Identity.make("by-hand") if cold else known.identity
    seed.write_seed(identity, keys.client_key().public, here / "seed.raw")
    script = here / "by-hand.sh"
    script.write_text(_script(known, here, port, cold=cold))
    return spent.on(["/bin/sh", str(script)], cwd=here, afterwards=lambda: _end(here / "pid"))


def _script(known: ByHand, here: Path, port: int, *, cold: bool) -> str:
    door = Door(Endpoint("127.0.0.1", port), _login(known))
    line = re.sub(r"hostfwd=tcp:127\.0\.0\.1:\d+-", f"hostfwd=tcp:127.0.0.1:{port}-", known.line)
    disks = known.disks
    if not cold:
        saved = sorted(path for path in known.saved.iterdir() if path.suffix == ".qcow2")
        disks = tuple(f"qemu-img create -q -f qcow2 -b {path} -F qcow2 {here}/{path.name}" for path in saved)
        line = f"{line} -incoming fd:5 5<{known.saved}/state"
    ssh = shlex.join(["ssh", *door.options(), door.address, "true"])
    text = "\n".join(
        (
            *("set -e", *disks),
            f"{line} </dev/null >console.log 2>&1 &",
            "echo $! >pid",
            *(() if cold else (shlex.join(["timeout", "60", sys.executable, "-I", "-S", "-c", _GO_ON]),)),
            f"tries=0; until {ssh}; do",
            f"  tries=$((tries + 1)); [ $tries -lt {_SSH_TRIES_S * 10} ]; kill -0 $!; sleep 0.1",
            "done",
        )
    )
    return text.replace(known.lab_folder, str(here)) + "\n"


def _login(known: ByHand) -> SshLogin:
    return SshLogin("root", keys.client_key().private, known.identity.host_key_public)


def _end(pid_file: Path) -> None:
    try:
        os.kill(int(pid_file.read_text()), signal.SIGKILL)
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return  # it never started, or ended: the script has said so


if __name__ == "__main__":
    for row in measure():
        print(*row.cells(), sep="  ")
