"""A host that the lab makes on this machine: restored from the frozen one, woken with an identity of its own.

Each host that is made has its own SSH host key, which comes on the seed disk as a guest's does: the frozen memory
holds no key, and its sshd answers nobody until the seed was read. So nothing is trusted on first use, and a copy of
the cache gives nobody a way in. Below `lab.hypervisors`' directories, so a dead controller's host is found again.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lab import log, process, waiting
from lab.contracts import Endpoint, Image, Realness, SshLogin
from lab.errors import HostError, HypervisorRefused, ImageError, LabBusy, LabError, MachineVanished, WaitedTooLong
from lab.guests.identity import Identity
from lab.hypervisors import _machine_directory as files
from lab.hypervisors import _qemu_memory as memory
from lab.hypervisors import _qemu_power as power
from lab.hypervisors._qemu_monitor import Monitor
from lab.hypervisors._qemu_store import require_space
from lab.hypervisors._reached_host import ReachedHost
from lab.provisioning import made_frozen as frozen
from lab.provisioning import made_kinds as kinds
from lab.provisioning import made_qemu as qemu
from lab.provisioning import seed
from lab.provisioning.cache import Progress
from lab.provisioning.keys import client_key

DRIVER = "made"  # the folder of these hosts among the machines
WAKE_LIMIT_S = 60.0
CLOCK_TRIES = 8  # a host that was just restored is slow at first: its emulator has translated nothing yet
CLOCK_ERROR_S = 2.0  # the conformance checks allow a guest five
ANSWER_LIMIT_S = 180.0  # one that shares two processors with eight others needed more than 60
LEND_LIMIT_S = 90.0
KEEP_LIMIT_S = 180.0
KEPT = "/var/lib/interop-lab/lent"  # in the host
PREFIX = 24
# Not those of QEMU's own gateway and name server (.2, .3), its DHCP range (.15 and on), or the host.
GUEST_ADDRESSES = tuple(f"10.0.2.{number}" for number in range(101, 200))
_NEEDED_BYTES = 256 << 20
_FORWARD = re.compile(r"TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s+(\d+(?:\.\d+){3})\s+(\d+)\s")
_log = log.get(__name__)


@dataclass(frozen=True)
class Mark:
    """What `machine.json` of a made host holds; `image` keeps what it stands on from being pruned."""

    name: str
    recipe: str  # which kind of host it is
    image: str  # path of the image's disk
    frozen: str  # key of the frozen host
    host_key: str
    pid: int  # who made it, and when that process started
    pid_started: int
    port: int = 0  # of 127.0.0.1, leads to its SSH; 0: it is not ready


class MadeHost:
    """One host that runs, or did. Safe to use from several processes; what it lends and forwards is QEMU's to tell."""

    def __init__(self, path: Path, mark: Mark) -> None:
        self.emulator = qemu.Emulator(path)
        self.mark = mark
        self.kind = kinds.named(mark.recipe)

    def reached(self) -> ReachedHost:
        """What the driver gets."""
        return ReachedHost(
            endpoint=Endpoint("127.0.0.1", self.mark.port),
            login=SshLogin("root", client_key().private, self.mark.host_key),
            realness=Realness.EMULATED,
            maker=self,
            answers_within_s=ANSWER_LIMIT_S,
            bridge=self.kind.bridge,
            guest_addresses=GUEST_ADDRESSES,
            guest_prefix=PREFIX,
            gateway=qemu.GATEWAY,
            proof=self.kind.proved,
        )

    def answers(self) -> bool:
        """Whether its emulator runs and its SSH says so; a hung host does not."""
        if not self.mark.port or not self.emulator.is_alive():
            return False
        greets = lambda: _banner(self.mark.port) or not self.emulator.is_alive()  # noqa: E731
        try:
            # A host on a busy machine may be slow, and guests on it would be lost with it.
            waiting.until(greets, what="the host to answer SSH", timeout_s=ANSWER_LIMIT_S)
        except WaitedTooLong:
            return False
        return self.emulator.is_alive()

    def console(self) -> bytes:
        return self.emulator.console()

    def did_not_answer(self, reason: LabError) -> HostError:
        """The error for a host that nobody can log in to, with what it said; its console is kept."""
        return frozen.did_not_come_up(self.mark.recipe, self.emulator, reason)

    def require_alive(self) -> None:
        self.emulator.require_alive()

    def forward(self, address: str, port: int, *, here: int = 0) -> Endpoint:
        """A port of 127.0.0.1 that leads there; `here` unless 0. Raises `HypervisorRefused`, `MachineVanished`."""
        if address not in (*GUEST_ADDRESSES, qemu.HOST_ADDRESS) or not 0 < port < 1 << 16:
            raise HypervisorRefused(f"{address}:{port} is not of the bridge of a host that the lab makes")
        with self.emulator.monitor() as monitor:
            return Endpoint("127.0.0.1", _forwarded(monitor, address, port, here=here))

    def unforward(self, address: str) -> None:
        """Close every port that leads to that address; safe to call twice."""
        with self.emulator.monitor() as monitor:
            for (where, _), here in forwards(monitor).items():
                if where == address:
                    monitor.human(f"hostfwd_remove {qemu.NETWORK} tcp:127.0.0.1:{here}")

    def lend(self, file: Path, disk_format: str) -> str:
        """Plug a file in as a read-only disk. Raises `HypervisorRefused`, `ImageError`, `MachineVanished`."""
        name = _name_of(file)
        if disk_format not in ("raw", "qcow2"):
            raise HypervisorRefused(f"{disk_format!r} is no format of a disk that can be lent")
        try:
            opened: dict[str, object] = {"driver": "file", "filename": str(file.resolve(strict=True)), "locking": "off"}
        except OSError as reason:
            raise ImageError(f"{file}: {reason.strerror}", hint="build or fetch the image again") from reason
        node = {"driver": disk_format, "node-name": name, "read-only": True, "file": {**opened, "read-only": True}}
        with self.emulator.monitor() as monitor:
            if name not in _nodes(monitor):
                monitor.command("blockdev-add", node)
            if name not in _devices(monitor):
                monitor.command("device_add", {"driver": "virtio-blk-pci", "id": name, "drive": name, "serial": name})
        self._ask("lend", name, what=f"the host to see {file}", timeout_s=LEND_LIMIT_S)
        return f"/dev/lab/{name}"

    def keep(self, file: Path) -> str:
        """Have the host copy a file's content. Raises as `lend`, and `HypervisorRefused` when the host cannot."""
        name = _name_of(file)
        done = self.emulator.path / f"{name}.kept"
        if done.exists():
            return f"{KEPT}/{name}"
        self.lend(file, "raw")
        try:
            self._ask("keep", f"{name} {file.stat().st_size}", what=f"the host to copy {file}", timeout_s=KEEP_LIMIT_S)
        except WaitedTooLong as reason:
            raise HypervisorRefused(reason.what) from reason
        self.take_back(file)
        done.touch()
        return f"{KEPT}/{name}"

    def take_back(self, file: Path) -> None:
        """Unplug it; safe to call twice. Raises `HypervisorRefused` when the host keeps it."""
        name = _name_of(file)
        with self.emulator.monitor() as monitor:
            if name in _devices(monitor):
                monitor.command("device_del", {"id": name})
            gone = lambda: name not in _devices(monitor)  # noqa: E731
            released = lambda: _released(monitor, name)  # noqa: E731
            try:
                monitor.until(gone, what=f"the host to let go of {file}", timeout_s=LEND_LIMIT_S)
                monitor.until(released, what=f"QEMU to let go of {file}", timeout_s=LEND_LIMIT_S)
            except WaitedTooLong as reason:
                raise HypervisorRefused(reason.what) from reason

    def destroy(self) -> None:
        """End it and remove every trace; safe to call twice."""
        self.emulator.end()
        files.remove(self.emulator.path)
        _log.info("host.destroyed", path=self.emulator.path)

    def _ask(self, request: str, words: str, *, what: str, timeout_s: float) -> None:
        """A request to the host over its console, which it answers with the same number."""
        number = os.urandom(6).hex()
        self.emulator.wait_for(
            f"interop-lab: done {number}",
            what=what,
            timeout_s=timeout_s,
            again=lambda: self.emulator.type(f"{request} {number} {words}"),
        )

    def wake(self) -> None:
        """Set its clock, give it its identity. Raises `WaitedTooLong`, `MachineVanished`, `LabBusy`."""
        late = self._set_clock()
        for _ in range(CLOCK_TRIES - 1):
            if late <= CLOCK_ERROR_S:
                return
            late = self._set_clock()
        if late > CLOCK_ERROR_S:
            raise LabBusy(
                f"the clock of {self.mark.name} cannot be set: its dom0 takes {late:.0f} s to do as it is told",
                hint="every guest on it would have that wrong time; run fewer cells at once",
            )

    def _set_clock(self) -> float:
        """By how many seconds the clock may be late after that: what was typed may wait for a busy dom0 to read it."""
        number = os.urandom(6).hex()
        typed: list[float] = []

        def tell() -> None:
            typed.append(time.time())
            # Whole seconds, because busybox's date takes no others.
            self.emulator.type(f"wake {number} {typed[-1]:.0f}")

        what = "the host to take its clock and its key"
        self.emulator.wait_for(f"interop-lab: done {number}", what=what, timeout_s=WAKE_LIMIT_S, again=tell)
        # Told twice, it may have read only the first.
        return time.time() - typed[0]


def restore(name: str, image: Image, progress: Progress) -> MadeHost:
    """A host whose sshd goes on, from the frozen one; that is made first where there is none.

    The caller holds the lock of that name. Raises `HostError`, `LabBusy`, `LabDiskFull`, `MissingTool`.
    """
    frozen_key = frozen.key(image)
    if not frozen.exists(frozen_key):
        frozen.freeze(image, frozen_key, progress)
    try:
        return _restored(name, image, frozen_key)
    except HypervisorRefused as reason:
        # The memory that was kept is no use any more (another QEMU of the same number, a damaged disk).
        _log.warning("host.frozen-unusable", key=frozen_key, why=reason.what)
        progress(f"the frozen host is unusable and is made again: {reason.what}")
        frozen.forget(frozen_key)
        frozen.freeze(image, frozen_key, progress)
        return _restored(name, image, frozen_key)


def _restored(name: str, image: Image, frozen_key: str) -> MadeHost:
    start = time.monotonic()
    path = place(name)
    me = os.getpid()
    identity = Identity.make(name)
    mark = Mark(
        name, image.name, str(image.disk), frozen_key, identity.host_key_public, me, process.start_time(me) or 0
    )
    files.claim(path, name, asdict(mark))
    made = MadeHost(path, mark)
    try:
        require_space(path, _NEEDED_BYTES, f"the host {name}")
        seed.write_seed(identity, client_key().public, path / qemu.SEED)
        home = frozen.place(frozen_key)
        power.make_disks([power.overlay_command(home / qemu.ROOT, "qcow2", path / qemu.ROOT)])
        made = _start(made, home)
    except (WaitedTooLong, MachineVanished) as reason:
        raised = made.did_not_answer(reason)
        made.destroy()
        raise raised from reason
    except BaseException:
        made.destroy()
        raise
    _log.info("host.restored", name=name, seconds=round(time.monotonic() - start, 2))
    return made


def _start(made: MadeHost, home: Path) -> MadeHost:
    emulator = made.emulator
    binary, _ = qemu.find()
    with ThreadPoolExecutor(1) as beside:
        # Reading the state to check it takes as long as QEMU takes to load it.
        found = beside.submit(frozen.checksum, home / frozen.STATE)
        emulator.start([*qemu.words(binary, made.kind), "-S"], incoming=home / frozen.STATE)
        with emulator.monitor() as monitor:
            loaded = lambda: monitor.status() != "inmigrate"  # noqa: E731
            monitor.until(loaded, what="QEMU to load the memory", timeout_s=memory.LIMIT_S)
            port = _forwarded(monitor, qemu.HOST_ADDRESS, 22)
            frozen.verifier(home.name, found.result)()
            monitor.command("cont")
    made.wake()
    mark = Mark(**{**asdict(made.mark), "port": port})
    files.write_mark(emulator.path, asdict(mark))
    ready = MadeHost(emulator.path, mark)
    if made.kind.knock:
        waiting.until(partial(_banner, port), what="the host to answer SSH", timeout_s=ANSWER_LIMIT_S)
    return ready


def place(name: str) -> Path:
    """The directory of the host of that name, there or not."""
    return files.of_machine(DRIVER, name, "host")


def existing(name: str) -> MadeHost | None:
    """The host of that name, whatever state it is in; `None` when there is none."""
    path = place(name)
    if not files.is_marked(path):
        return None
    try:
        content = files.read_mark(path)
        mark = Mark(**{field: content[field] for field in Mark.__dataclass_fields__})
    except (KeyError, TypeError, ValueError) as reason:
        raise HypervisorRefused(f"{path / files.MARK} is damaged: {reason}", hint=f"delete {path}") from reason
    return MadeHost(path, mark)


def forwards(monitor: Monitor) -> Mapping[tuple[str, int], int]:
    """(address, TCP port) behind QEMU: port of 127.0.0.1, as QEMU itself tells them."""
    table = monitor.human("info usernet").replace("\r", "\n") + "\n"
    return {(found[2], int(found[3])): int(found[1]) for found in _FORWARD.finditer(table)}


def _forwarded(monitor: Monitor, address: str, port: int, *, here: int = 0) -> int:
    known = forwards(monitor)
    if (address, port) in known:
        return known[address, port]
    # QEMU binds port 0 and the kernel chooses, so nobody ever races for one.
    said = monitor.human(f"hostfwd_add {qemu.NETWORK} tcp:127.0.0.1:{here}-{address}:{port}").strip()
    known = forwards(monitor)
    if (address, port) not in known:
        raise HypervisorRefused(f"QEMU did not forward a port to {address}:{port}: {said}")
    return known[address, port]


def _nodes(monitor: Monitor) -> set[str]:
    return {node["node-name"] for node in monitor.command("query-named-block-nodes", {"flat": True})}


def _released(monitor: Monitor, name: str) -> bool:
    """Whether the file is closed; QEMU keeps it for a moment after the device is gone."""
    if name not in _nodes(monitor):
        return True
    try:
        monitor.command("blockdev-del", {"node-name": name})
    except HypervisorRefused as reason:
        if "is in use" not in reason.what:
            raise
        return False
    return True


def _devices(monitor: Monitor) -> set[str]:
    found: list[dict[str, Any]] = monitor.command("qom-list", {"path": "/machine/peripheral"})
    return {entry["name"] for entry in found}


def _name_of(file: Path) -> str:
    # A virtio disk's serial number has 20 bytes, and is all that the host hears of the file.
    return f"lab-{hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:14]}"


def _banner(port: int) -> bool:
    """Whether an SSH server answers: QEMU itself accepts every connection."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.settimeout(5)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False
