"""The warden: the process that holds one User-Mode Linux machine; when it ends, everything of the machine ends.

Started by the driver as `python -S -P -m lab.hypervisors._uml_warden` in the machine's folder, with a JSON object on
standard input (`Orders`). It is process 1 of its own process namespace, so the kernel ends all of linux.uml's many
processes with it. It answers on standard output with one line of JSON: `{"ready": true}` or `{"error", "hint"}`.
Only the standard library, so that it starts fast and stays small.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from lab.hypervisors import _uml_network as network
from lab.hypervisors import _uml_sandbox as sandbox
from lab.hypervisors._uml_console import BoundedLog
from lab.hypervisors._uml_mconsole import ask
from lab.hypervisors._uml_relay import Relay
from lab.hypervisors._uml_shared import SharedCard
from lab.process import start_time

PROCESS_FILE = "process.json"  # {"pid", "started"} of the warden, as the host numbers processes
ENDED_FILE = "ended.json"  # {"status", "restart_withheld"}: how linux.uml ended, negative for a signal
CONTROL_SOCKET = "control"
PLUGGED_FILE = "plugged.json"  # [{"word", ...}]: disks and cards that came while the machine ran
RESETS_FILE = "resets.json"  # {"resets"} since the start
UMID = "uml"
NAME = "./linux.uml"
"""What linux.uml is told that it is called. At a reboot of the guest it executes that again, with its descriptors open,
so that the tap device stays taken and the guest comes back without a network. There is no such file: linux.uml ends
instead, and the warden starts it anew."""
_NO_SUCH_FILE = b"Failed to exec kernel"  # its last words then
_MCONSOLE = f"{UMID}/mconsole"
_MAX_REQUEST = 4096
_LAST_WORDS = 128  # bytes


@dataclass(frozen=True)
class Orders:
    """What the driver wants."""

    program: str  # path of linux.uml, in the sandbox as on the host
    argv: list[str]  # of linux.uml, paths as in the sandbox
    read_only: dict[str, str]  # path in the sandbox -> file of the host
    writable: dict[str, str]
    memory_mib: int
    environment: dict[str, str]  # of linux.uml


def main() -> None:
    """Make the namespaces, become process 1 of them, run linux.uml to its end."""
    orders = Orders(**json.load(sys.stdin))
    machine = Path.cwd()
    try:
        network.enter_namespaces()
        told, tell = os.pipe()
        child = os.fork()
        if child:
            _record(child, machine)
            os.write(tell, b".")
            os._exit(0)
        os.close(tell)
        if not os.read(told, 1):
            os._exit(1)  # the parent could not record this process; nobody would find it
        for number in range(network.TAPS):
            network.make_tap(network.tap(number))
            network.bring_up(network.tap(number))
        network.set_address(network.tap(0), network.GATEWAY, network.PREFIX)
        network.bring_up("lo")
        root = machine / "root"
        root.mkdir(exist_ok=True)
        files = [{name: Path(path) for name, path in part.items()} for part in (orders.read_only, orders.writable)]
        control = _control_socket()
        folder = os.open(machine, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        sandbox.confine(root, sandbox.View(files[0], files[1], orders.memory_mib))
        sandbox.drop_privileges()
    except (network.NotAllowed, OSError) as reason:
        _say({"error": str(reason), "hint": getattr(reason, "hint", network.REMEDY)})
        os._exit(1)
    # The machine's folder is not in the sandbox; this descriptor is the only way there, and linux.uml has it not.
    _Warden(orders, Path(f"/proc/self/fd/{folder}")).run(control)


def _record(child: int, machine: Path) -> None:
    """Write down who holds the machine before anything runs that somebody might have to end."""
    _write_whole(machine / PROCESS_FILE, {"pid": child, "started": start_time(child)})


def _write_whole(path: Path, content: object) -> None:
    """Whoever watches the machine reads these files again and again, and must never find half of one."""
    written = path.with_name(f"{path.name}.new")
    written.write_text(json.dumps(content))
    written.replace(path)


def _say(message: dict[str, object]) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


class _Warden:
    def __init__(self, orders: Orders, folder: Path) -> None:
        self._orders = orders
        self._folder = folder
        self._relays: dict[int, Relay] = {}
        self._shared: dict[int, SharedCard] = {}  # by the number of their tap device
        self._keyboard = -1  # what is written there the guest reads from its console
        self._withhold_restart = False
        self._last_words = b""

    def run(self, control: socket.socket) -> None:
        """Never returns."""
        signal.signal(signal.SIGTERM, _leave)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # linux.uml dumps its whole memory when a guest panics
        log = BoundedLog(self._folder)
        child, console = self._start()
        threading.Thread(target=self._answer, args=(control,), daemon=True).start()
        _say({"ready": True})
        with Path("/dev/null").open("r+b") as nothing:
            for standard in (0, 1, 2):
                os.dup2(nothing.fileno(), standard)
        resets = 0
        while True:
            status = self._see_to_the_end(child, console, log)
            wants_restart = status in (0, 1) and _NO_SUCH_FILE in self._last_words
            if not wants_restart or self._withhold_restart:
                break
            resets += 1
            _write_whole(self._folder / RESETS_FILE, {"resets": resets})
            child, console = self._start()
        _write_whole(self._folder / ENDED_FILE, {"status": status, "restart_withheld": wants_restart})
        os._exit(0)

    def _start(self) -> tuple[int, int]:
        """The process of a new linux.uml and the reading end of its console."""
        shutil.rmtree(UMID, ignore_errors=True)  # or it believes that its name is taken, and chooses another
        self._last_words = b""
        console, output = os.pipe()
        keys, keyboard = os.pipe()
        os.set_blocking(keyboard, False)
        child = os.posix_spawn(
            self._orders.program,
            [*self._orders.argv, *self._plugged()],
            {"HOME": "/machine", "TMPDIR": "/dev/shm", **self._orders.environment},  # noqa: S108
            file_actions=[(os.POSIX_SPAWN_DUP2, there, here) for there, here in ((keys, 0), (output, 1), (output, 2))],
        )
        os.close(output)
        os.close(keys)
        self._keyboard, before = keyboard, self._keyboard
        if before >= 0:
            os.close(before)
        return child, console

    def _plugged(self) -> list[str]:
        """The words for what was attached while the machine ran: a reboot does not take it away."""
        with suppress(FileNotFoundError):
            return [str(one["word"]) for one in json.loads((self._folder / PLUGGED_FILE).read_text())]
        return []

    def _see_to_the_end(self, child: int, console: int, log: BoundedLog) -> int:
        keeping = threading.Thread(target=self._keep, args=(console, log), daemon=True)
        keeping.start()
        status = _wait_for(child)
        _end_all_others()  # they hold the console, the disks and the tap device open
        keeping.join()
        os.close(console)
        return status

    def _keep(self, console: int, log: BoundedLog) -> None:
        while data := os.read(console, 64 << 10):
            self._last_words = (self._last_words + data)[-_LAST_WORDS:]
            # A full disk must not stop the guest at its next line of output; what does not fit is lost.
            with suppress(OSError):
                log.write(data)

    def _forward(self, port: int, listener: socket.socket) -> None:
        relay = Relay(listener, network.GUEST, port)
        relay.start()
        self._relays[port] = relay

    def _answer(self, control: socket.socket) -> None:
        while True:
            connection, _ = control.accept()
            with connection, suppress(OSError):
                connection.settimeout(5.0)
                request, handed, _, _ = socket.recv_fds(connection, _MAX_REQUEST, 1)
                try:
                    answer = self._do(json.loads(request), handed)
                except (OSError, ValueError, KeyError) as reason:
                    answer = {"error": f"{type(reason).__name__}: {reason}"}
                connection.sendall(json.dumps(answer).encode() + b"\n")

    def _do(self, request: dict[str, object], handed: list[int]) -> dict[str, object]:
        match request["do"]:
            case "mconsole":
                answer = ask(_MCONSOLE, str(request["command"]), timeout_s=float(str(request["timeout_s"])))
                return {"refused": answer.refused, "text": answer.text}
            case "kernel-runs":
                return {"runs": Path(_MCONSOLE).exists()}
            case "forward":
                self._forward(int(str(request["port"])), socket.socket(fileno=handed[0]))
                return {}
            case "forwards":
                return {str(port): relay.port for port, relay in self._relays.items()}
            case "neighbours":
                return {"addresses": network.neighbours(Path("/proc/net/arp").read_text())}
            case "withhold-restart":
                self._withhold_restart = bool(request["yes"])
                return {}
            case "type":
                return {"typed": os.write(self._keyboard, bytes.fromhex(str(request["hex"])))}
            case "share":
                number = int(str(request["tap"]))
                card = SharedCard(network.tap(number), handed[0], str(request["member"]))
                self._shared[number] = card
                card.start()
                return {}
            case "unshare":
                left = self._shared.pop(int(str(request["tap"])), None)
                if left is not None:
                    left.close()
                return {}
            case other:
                raise ValueError(f"unknown request {other!r}")


def _control_socket() -> socket.socket:
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with suppress(FileNotFoundError):
        Path(CONTROL_SOCKET).unlink()
    control.bind(CONTROL_SOCKET)
    control.listen(8)
    return control


def _wait_for(child: int) -> int:
    """Reap whatever ends, as process 1 must, until linux.uml itself does; its exit status."""
    while True:
        pid, status = os.wait()
        if pid == child:
            return os.waitstatus_to_exitcode(status)


def _end_all_others() -> None:
    """linux.uml leaves processes behind when it ends badly; -1 is everybody in this process namespace but us."""
    with suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    with suppress(ChildProcessError):
        while True:
            os.wait()


def _leave(_number: int, _frame: FrameType | None) -> None:
    os._exit(0)


if __name__ == "__main__":
    main()
