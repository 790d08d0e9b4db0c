"""A Xen host that the lab makes, and a guest on it, each beside a script that does the same by hand.

    python benchmarks/xen_host.py

The first script restores the same memory with QEMU's own command line, tells the host the time and its key over the
console as the lab does, and asks OpenSSH until `xl info` answers, which is the first that the lab asks too; the lab
also compares the host key, checks the memory that it restores, and looks at the rest of the dom0. The second makes
the same disks in the dom0, calls `xl create`, and asks OpenSSH until the guest answers. Both sides end with the same
answer.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import spent  # noqa: E402 - also run as a file
from benchmarks.row import Row  # noqa: E402
from lab import process, waiting  # noqa: E402
from lab.contracts import Firmware, Image, MachineSpec, Owner, Profile, SshLogin  # noqa: E402
from lab.errors import GuestError  # noqa: E402
from lab.guests.channels import ssh  # noqa: E402
from lab.guests.identity import Identity  # noqa: E402
from lab.hypervisors._xen_host import XenHost, connect_to  # noqa: E402
from lab.inventory.models import BuildSource  # noqa: E402
from lab.provisioning import images, keys, made_frozen, made_host, made_kinds, made_qemu, seed  # noqa: E402

HOST_LIMIT, GUEST_LIMIT = 1.3, 1.2
HOST_ROUNDS, GUEST_ROUNDS = 5, 3
_LIMIT_S = 240.0
_PROFILE = Profile("xen-pv", Firmware.NONE, "xenpv", "xen", "xen", 1, 192)


def measure() -> list[Row]:
    """Two rows. Raises `spent.Failed`, `LabError`."""
    image = images.resolve(BuildSource(build="xen-host"), progress=lambda _: None)
    jeos = images.resolve(BuildSource(build="jeos"), progress=lambda _: None)
    with tempfile.TemporaryDirectory(prefix="interop-lab-bench-") as name:
        folder = Path(name)
        os.environ["XDG_STATE_HOME"], before = str(folder / "state"), os.environ.get("XDG_STATE_HOME")
        try:
            made_host.restore("first", image, lambda _: None).destroy()  # frozen, and its file in memory
            hosts = [
                _both_hosts(image, folder / f"bare{turn}", bare_first=turn % 2 == 1) for turn in range(HOST_ROUNDS)
            ]
            made = made_host.restore("bench", image, lambda _: None)
            try:
                with connect_to("bench", made.reached()) as host:
                    guests = [_both_guests(host, jeos, folder) for _ in range(GUEST_ROUNDS)]
            finally:
                made.destroy()
        finally:
            os.environ.pop("XDG_STATE_HOME")
            if before is not None:
                os.environ["XDG_STATE_HOME"] = before
    return [
        _row("a frozen Xen host to its first answer of xl", hosts, HOST_LIMIT, "a bare qemu -incoming and ssh"),
        _row("a PV guest on it to its first answer", guests, GUEST_LIMIT, "a bare xl create and ssh"),
    ]


def _row(what: str, pairs: list[tuple[float, float]], limit: float, beside: str) -> Row:
    ratio = statistics.median(ours / theirs for ours, theirs in pairs)
    ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    return Row(what, f"{ours:.1f} s, by hand {theirs:.1f} s", f"{ratio:.2f} x {beside}", f"{limit:g} x", ratio <= limit)


# ---------------------------------------------------------------------------------------------------------
# The host


def _both_hosts(image: Image, folder: Path, *, bare_first: bool) -> tuple[float, float]:
    if not bare_first:
        return _lab_host(image), _bare_host(image, folder)
    theirs = _bare_host(image, folder)
    return _lab_host(image), theirs


def _lab_host(image: Image) -> float:
    began = time.monotonic()
    made = made_host.restore("timed", image, lambda _: None)
    try:
        with connect_to("timed", made.reached()) as host:
            seconds = time.monotonic() - began
            if not host.facts().version:  # what xl info said
                raise spent.Failed("xl info did not answer")
            return seconds
    finally:
        made.destroy()


def _bare_host(image: Image, folder: Path) -> float:
    folder.mkdir()
    home = made_frozen.place(made_frozen.key(image))
    binary, _ = made_qemu.find()
    identity, key = Identity.make("bare"), keys.client_key()
    began = time.monotonic()
    seed.write_seed(identity, key.public, folder / made_qemu.SEED)
    overlay = ("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(home / made_qemu.ROOT))
    subprocess.run((*overlay, made_qemu.ROOT), cwd=folder, check=True, timeout=60)
    words = made_qemu.words(binary, made_kinds.of(image))
    with (home / made_frozen.STATE).open("rb") as state:
        emulator = subprocess.Popen(
            (*words, "-S", "-incoming", f"fd:{state.fileno()}"),
            cwd=folder,
            pass_fds=(state.fileno(),),
            stdin=subprocess.PIPE,
            stdout=(folder / "console").open("wb"),
        )
    try:
        port = _go_on(folder / "qmp.sock")
        assert emulator.stdin is not None
        emulator.stdin.write(f"wake 1a {time.time():.0f}\n".encode())
        emulator.stdin.flush()
        _ask(port, key.private, ("xl", "info"))
        return time.monotonic() - began
    finally:
        process.end(emulator)


def _go_on(path: Path) -> int:
    """Let a restored QEMU run; the port of this machine that leads to its SSH."""
    with socket.socket(socket.AF_UNIX) as sock:
        waiting.until(lambda: path.exists() and not sock.connect_ex(str(path)), what="QEMU", timeout_s=60)
        with sock.makefile("rw") as lines:

            def ask(command: str, **words: str) -> object:
                lines.write(json.dumps({"execute": command, "arguments": words}) + "\n")
                lines.flush()
                while True:
                    answer = json.loads(lines.readline())
                    if "return" in answer or "error" in answer:
                        return answer.get("return")

            def loaded() -> bool:
                status = ask("query-status")
                return isinstance(status, dict) and status["status"] != "inmigrate"

            lines.readline()
            ask("qmp_capabilities")
            waiting.until(loaded, what="QEMU to load the memory", timeout_s=60)
            ask("cont")
            forward = f"hostfwd_add {made_qemu.NETWORK} tcp:127.0.0.1:0-{made_qemu.HOST_ADDRESS}:22"
            ask("human-monitor-command", **{"command-line": forward})
            table = str(ask("human-monitor-command", **{"command-line": "info usernet"}))
    line = next(line.split() for line in table.splitlines() if "HOST_FORWARD" in line)
    return int(line[3])


def _ask(port: int, key: Path, argv: tuple[str, ...]) -> None:
    """OpenSSH, until that command succeeds. Raises `spent.Failed`."""
    plain = ("-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null")
    words = ("ssh", "-q", "-F", "none", "-i", str(key), "-p", str(port), *plain, "-o", "ConnectTimeout=10")
    end = time.monotonic() + _LIMIT_S
    while subprocess.run((*words, "root@127.0.0.1", *argv), capture_output=True, check=False, timeout=120).returncode:
        if time.monotonic() > end:
            raise spent.Failed(f"{' '.join(argv)} did not answer on port {port}")


# ---------------------------------------------------------------------------------------------------------
# The guest


def _both_guests(host: XenHost, jeos: Image, folder: Path) -> tuple[float, float]:
    identity, key = Identity.make("guest"), keys.client_key()
    seed_disk = folder / "seed.img"
    seed.write_seed(identity, key.public, seed_disk)
    owner = Owner("bench", "host/guest/profile", os.getpid(), process.start_time(os.getpid()) or 0)
    spec = MachineSpec("bench", owner, jeos, _PROFILE, seed_disk)
    login = SshLogin("root", key.private, identity.host_key_public)
    host.upload(jeos)  # once per image, on neither side
    began = time.monotonic()
    machine = host.create(spec)
    try:
        machine.start()

        def answers() -> bool:
            try:
                channel = ssh.connect(machine.endpoint(22), login, timeout_s=60)
            except GuestError:
                return False
            with_answer = channel.run(["true"]).status == 0
            channel.close()
            return with_answer

        waiting.until(answers, what="the guest to answer", timeout_s=_LIMIT_S)
        ours = time.monotonic() - began
        port = machine.endpoint(22).port
        machine.stop(force=True)
        began = time.monotonic()
        _create_by_hand(host)
        _ask(port, key.private, ("true",))
        return ours, time.monotonic() - began
    finally:
        machine.destroy()


def _create_by_hand(host: XenHost) -> None:
    """The guest again, of the files that it has, with OpenSSH and one call of xl."""
    reached = host.link.dom0
    plain = ("-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null")
    words = ("ssh", "-q", "-F", "none", "-i", str(reached.login.private_key), "-p", str(reached.endpoint.port), *plain)
    command = "xl create -q /var/lib/interop-lab/machines/bench/xl.cfg"
    subprocess.run((*words, "root@127.0.0.1", command), check=True, timeout=_LIMIT_S, capture_output=True)


if __name__ == "__main__":
    for row in measure():
        print(*row.cells(), sep="  ")
