"""The emulator of a host that the lab makes itself: its command line, its process, its console.

The command line names no place of this machine, so a saved state fits every directory; QEMU runs below a keeper,
like a machine of the `qemu` driver, and outlives its controller.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lab import process, waiting
from lab.errors import HostError, HypervisorRefused, LabBusy, LabError, MachineVanished, WaitedTooLong
from lab.hypervisors import _qemu_host as qemu_host
from lab.hypervisors._qemu_monitor import Monitor, MonitorLost, talk
from lab.hypervisors._qemu_store import Directory
from lab.provisioning.made_kinds import Kind

BINARY = "qemu-system-x86_64"
MEMORY_MIB = 2048
HOST_ADDRESS = "10.0.2.15"
GATEWAY = "10.0.2.2"
NETWORK = "net0"
SEED_SERIAL = "lab-seed"
ROOT, SEED = "root.qcow2", "seed.raw"
START_LIMIT_S = 60.0
_KEEPER = Path(qemu_host.__file__).with_name("_qemu_keeper.py")
_SHOWN_LINES = 12


def find() -> tuple[str, str]:
    """QEMU's path and its build. Raises `MissingTool`."""
    binary = process.find(BINARY, package="qemu-system-x86")
    return binary, qemu_host.version_of(binary)[1]


def words(binary: str, kind: Kind) -> list[str]:
    """QEMU's command line but for what it starts."""
    return [
        binary,
        *("-name", f"interop-lab-{kind.recipe}"),
        *("-machine", "pc"),
        *("-accel", "tcg,thread=multi"),
        *("-cpu", kind.cpu),
        *("-smp", "2"),
        *("-m", f"{MEMORY_MIB}M"),
        *("-nodefaults", "-no-user-config", "-no-shutdown", "-no-reboot"),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        *("-display", "none"),
        *("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"),
        *("-chardev", "socket,id=monitor,path=qmp.sock,server=on,wait=off", "-mon", "chardev=monitor,mode=control"),
        # What a killed machine loses is the lab's to lose: a made host lives for one run.
        *("-drive", f"if=none,id=root,file={ROOT},format=qcow2,cache=unsafe,discard=unmap"),
        *("-device", "virtio-blk-pci,drive=root,serial=lab-root"),
        *("-drive", f"if=none,id=seed,file={SEED},format=raw,readonly=on"),
        *("-device", f"virtio-blk-pci,drive=seed,serial={SEED_SERIAL}"),
        *("-netdev", f"user,id={NETWORK}"),
        *("-device", f"virtio-net-pci,netdev={NETWORK},mac=52:54:00:00:00:15,romfile="),
        *("-device", "virtio-rng-pci"),
    ]


class Emulator:
    """The QEMU process of one made host; everything of it is in one directory."""

    def __init__(self, path: Path) -> None:
        self.files = Directory(path, "")

    @property
    def path(self) -> Path:
        return self.files.path

    def start(self, line: Sequence[str], *, incoming: Path | None = None) -> None:
        """Start QEMU; returns when its monitor answers. Raises `HostError`, `LabBusy`, `LabDiskFull`."""
        self.files.forget_process()
        job = {
            "directory": str(self.path),
            "console": str(self.path),
            "argv": list(line),
            "incoming": None if incoming is None else str(incoming),
        }
        keeper = process.run(
            [sys.executable, "-I", "-S", _KEEPER], timeout_s=START_LIMIT_S, stdin=json.dumps(job).encode()
        )
        answer = json.loads(keeper.stdout or "{}")
        if "error" in answer:
            raise process.disk_full_or(OSError(answer["errno"], answer["error"]), f"starting {line[0]}")
        if self.files.running() is None:
            raise HostError(f"the keeper of {self.path} did not start QEMU: {keeper.stderr.strip()[-500:]}")
        try:
            waiting.until(self._answers, what="QEMU's monitor to answer", timeout_s=START_LIMIT_S)
        except LabError:
            self.end()
            raise

    def _answers(self) -> bool:
        if not self.is_alive():
            said = self._last_words()
            if "cannot set up guest memory" in said or "Cannot allocate memory" in said:
                raise LabBusy(
                    f"this machine has not enough free memory for a host that the lab makes: {said}",
                    hint=f"it takes {MEMORY_MIB} MiB; run fewer cells at once, or leave the host out",
                )
            raise HostError(f"QEMU ended while starting a host that the lab makes: {said}")
        try:
            with talk(self.path) as monitor:
                return bool(monitor.status())
        except MonitorLost:
            return False

    def is_alive(self) -> bool:
        running = self.files.running()
        return running is not None and running.is_alive()

    def require_alive(self) -> None:
        """Raises `MachineVanished` with QEMU's last words."""
        if not self.is_alive():
            raise MachineVanished(
                f"the emulator of the host in {self.path} is gone: {self._last_words()}",
                hint="guests that ran on it are lost; the next connection makes a new host",
            )

    def _last_words(self) -> str:
        running, status = self.files.running(), None
        if running is not None:
            try:
                # The keeper writes down what was still in the pipe, then ends.
                ended = lambda: not process.is_alive(running.keeper_pid, running.keeper_started)  # noqa: E731
                waiting.until(ended, what="the keeper to write QEMU's last words", timeout_s=3)
            except WaitedTooLong:
                return self.files.complaint() or "its keeper still runs"
            status = self.files.events().exit_status
        how = "" if status is None else f" (signal {-status})" if status < 0 else f" (exit status {status})"
        return (self.files.complaint() or "it said nothing") + how

    @contextmanager
    def monitor(self) -> Iterator[Monitor]:
        """Speak to QEMU. Raises `MachineVanished`, `MonitorLost`."""
        self.require_alive()
        try:
            with talk(self.path) as monitor:
                yield monitor
        except MonitorLost:
            self.require_alive()
            raise

    def end(self) -> None:
        """Cut the power: QEMU and its keeper, nobody else. Safe to call twice."""
        running = self.files.running()
        if running is None:
            return
        process.end_by_id(running.pid, running.started)
        process.end_by_id(running.keeper_pid, running.keeper_started, patience_s=1.0)
        if running.is_alive():
            raise HypervisorRefused(f"QEMU, process {running.pid}, cannot be ended")

    def console(self) -> bytes:
        return self.files.console.read()

    def console_end(self) -> str:
        """The last lines of the console, for an error."""
        lines = self.console().decode(errors="replace").replace("\r", "").splitlines()
        shown = [line for line in lines if line.strip()][-_SHOWN_LINES:]
        return "".join(f"\n  | {line[:200]!s}" for line in shown) or " nothing"

    def type(self, line: str) -> None:
        """A line on the serial console. Raises `MachineVanished`."""
        self.require_alive()
        try:
            opened = os.open(self.path / "console.in", os.O_WRONLY | os.O_NONBLOCK)
            try:
                os.write(opened, f"{line}\n".encode())
            finally:
                os.close(opened)
        except OSError as reason:
            raise HypervisorRefused(f"nothing can be typed on the console of {self.path}: {reason}") from reason

    def wait_for(self, text: str, *, what: str, timeout_s: float, again: Callable[[], None] | None = None) -> None:
        """Wait until the console shows a line that holds `text`; `again` is called each third of the time.

        Raises `WaitedTooLong`, `MachineVanished`.
        """
        wanted = text.encode()

        def shown() -> bool:
            self.require_alive()
            return wanted in self.console()

        rounds = 3 if again is not None else 1
        for number in range(rounds):
            if again is not None:
                again()
            try:
                waiting.until(shown, what=what, timeout_s=timeout_s / rounds, longest_pause_s=0.03)
            except WaitedTooLong:
                if number == rounds - 1:
                    raise
            else:
                return
