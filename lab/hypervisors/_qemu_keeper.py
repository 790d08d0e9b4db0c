"""The keeper: a small process that starts one QEMU, bounds what it writes, and notes what happens to it.

It outlives the controller, because a machine may. It is started as a file, `python -I -S`, and imports nothing
but the standard library, so it costs 10 MiB and 50 ms. When the keeper is killed, QEMU goes on and only the
notes end. What it leaves in the machine's directory:

- `process.json`: ids and start times of QEMU and keeper, whole or absent;
- `console.log`, `stderr.log`, `tpm.log`: the beginning; `*.old` and `*.new`: the end, `*.left-out`: bytes between them;
- `console.in`: a named pipe; what is written to it is typed on the machine's serial line;
- `events.json`: resets by the guest, panic, shutdown, what the watchdog did, exit status.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

TYPE_CHECKING = False  # typing itself would be a third of what the keeper imports
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import IO, Any

HEAD_BYTES = 1 << 20
TAIL_BYTES = 1 << 20
RECENT_EVENTS = 50
_PATIENCE_S = 2.0
_NOTED = ("RESET", "SHUTDOWN", "GUEST_PANICKED", "GUEST_CRASHLOADED", "BLOCK_IO_ERROR", "STOP", "RESUME", "WATCHDOG")


class BoundedLog:
    """A log file that keeps its beginning and its end, over all boots of a machine."""

    def __init__(self, path: Path, *, head: int = HEAD_BYTES, tail: int = TAIL_BYTES) -> None:
        self._path, self._head, self._tail = path, head, tail

    def part(self, suffix: str) -> Path:
        return self._path.with_name(f"{self._path.name}.{suffix}")

    def write(self, data: bytes) -> None:
        """Append. A full disk loses the log, never the machine: the guest must not be blamed for it."""
        try:
            room = self._head - _size(self._path)
            if room > 0 or not self._path.exists():
                _append(self._path, data[: max(room, 0)])
                data = data[max(room, 0) :]
            while data:
                room = self._tail - _size(self.part("new"))
                if room <= 0:
                    self._rotate()
                    continue
                _append(self.part("new"), data[:room])
                data = data[room:]
        except OSError:
            return

    def _rotate(self) -> None:
        lost = _size(self.part("old"))
        if lost:
            self.part("left-out").write_text(str(self.left_out() + lost))
        self.part("new").replace(self.part("old"))

    def left_out(self) -> int:
        try:
            return int(self.part("left-out").read_text())
        except (FileNotFoundError, ValueError):
            return 0

    def read(self) -> bytes:
        """What is kept: the beginning, a line that says how much is missing, the end."""
        if not self._path.exists():
            return b""
        lost = self.left_out()
        gap = f"\n[interop-lab: {lost} bytes left out here]\n".encode() if lost else b""
        return self._path.read_bytes() + gap + _content(self.part("old")) + _content(self.part("new"))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


class Notes:
    """`events.json`: written anew, whole, at every event."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._content: dict[str, Any] = {
            "resets": 0,
            "fired": 0,
            "panicked": False,
            "shutdown": None,
            "no_space": False,
            "exit": None,
            "recent": [],
        }
        self._save()

    def event(self, event: dict[str, Any]) -> bool:
        """Note a QMP event; whether the guest has just powered off."""
        kind, data = event.get("event", ""), event.get("data", {})
        if kind not in _NOTED:
            return False
        content = self._content
        if kind == "RESET":
            content["panicked"] = False
            content["resets"] += 1 if data.get("guest") else 0
        elif kind == "WATCHDOG":
            content["fired"] += 1
        elif kind == "GUEST_PANICKED":
            content["panicked"] = True
        elif kind == "BLOCK_IO_ERROR" and data.get("nospace"):
            content["no_space"] = True
        elif kind == "RESUME":
            content["no_space"] = False
        elif kind == "SHUTDOWN" and content["shutdown"] is None:  # our own "quit" causes a second one
            content["shutdown"] = {"guest": bool(data.get("guest")), "reason": str(data.get("reason", ""))}
        content["recent"] = [*content["recent"], {"event": kind, "data": data, "at": time.time()}][-RECENT_EVENTS:]
        self._save()
        return kind == "SHUTDOWN" and bool(data.get("guest"))

    def exited(self, status: int) -> None:
        self._content["exit"] = status
        self._save()

    def _save(self) -> None:
        _write_whole(self.path, self._content)


def _write_whole(path: Path, content: object) -> None:
    draft = path.with_name(f".{path.name}.draft")
    try:
        draft.write_text(json.dumps(content))
        draft.replace(path)
    except OSError:  # the directory was removed or the disk is full; the machine must not die of it
        return


class Monitor:
    """The keeper's own QMP connection: it hears events, and quits QEMU once the guest has powered off."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._rest = b""

    def fileno(self) -> int:
        return self._connection.fileno()

    def hear(self, notes: Notes) -> bool:
        """Read what came; false when the connection is gone."""
        try:
            data = self._connection.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            message = json.loads(line) if line.strip() else {}
            if "QMP" in message:
                self._say("qmp_capabilities")
            elif "event" in message and notes.event(message):
                self._say("quit")
        return True

    def _say(self, command: str) -> None:
        try:
            self._connection.sendall(json.dumps({"execute": command}).encode() + b"\n")
        except OSError:  # QEMU ended meanwhile; the next read says so
            return


def start_ticks(pid: int) -> int:
    """proc(5), /proc/PID/stat, field 22; 0 when the process is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    except (OSError, IndexError):
        return 0


def keep(job: dict[str, Any]) -> None:
    """Start QEMU, and a TPM where the job says how; report to standard output, stay until they end."""
    directory, console, incoming = Path(job["directory"]), Path(job["console"]), job["incoming"]
    ours, theirs = socket.socketpair()
    given = [theirs.fileno()]
    words = [*job["argv"], "-chardev", f"socket,id=keeper,fd={theirs.fileno()}", "-mon", "chardev=keeper,mode=control"]
    if incoming is not None:
        given.append(os.open(incoming, os.O_RDONLY))
        words += ["-incoming", f"fd:{given[-1]}"]
    notes = Notes(directory / "events.json")
    helper = None
    if job.get("tpm"):
        helper, line = _start_tpm(job["tpm"], directory)
        given.append(line)
        words += ["-chardev", f"socket,id=tpm,fd={line}"]
    typed = _typed(directory / "console.in")
    child = _start(words, directory, typed, given)
    for fd in (*given[1:], typed):
        os.close(fd)
    theirs.close()
    started = {**_named(child.pid), "keeper": _named(os.getpid())}
    _write_whole(directory / "process.json", {**started, **({"tpm": _named(helper.pid)} if helper else {})})
    if not (directory / "process.json").exists():
        child.kill()  # whoever wanted the machine was killed, and it was reaped meanwhile: nobody would find QEMU
    _report({"pid": child.pid})
    streams = {"console": child.stdout, "stderr": child.stderr, **({"tpm": helper.stderr} if helper else {})}
    # A machine that moves to another place has one console in all of them.
    places = {name: console if name == "console" else directory for name in streams}
    logs = {BoundedLog(places[name] / f"{name}.log"): stream for name, stream in streams.items()}
    _watch(logs, Monitor(ours), notes, helper)
    notes.exited(child.wait())
    if helper is not None:
        _end(helper)


def _start(words: list[str], directory: Path, stdin: int, given: list[int]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        words,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=directory,
        pass_fds=given,
        preexec_fn=_restore_signals,
    )


def _start_tpm(words: list[str], directory: Path) -> tuple[subprocess.Popen[bytes], int]:
    """The emulator, and the end of its line that QEMU gets.

    Nobody else has that end, so the emulator hears of QEMU's death, whoever killed it, and ends ("--terminate").
    """
    for_qemu, for_tpm = socket.socketpair()
    control = ["--terminate", "--ctrl", f"type=unixio,clientfd={for_tpm.fileno()}"]
    helper = _start([*words, *control], directory, subprocess.DEVNULL, [for_tpm.fileno()])
    for_tpm.close()
    return helper, for_qemu.detach()


def _end(helper: subprocess.Popen[bytes]) -> None:
    helper.terminate()
    try:
        helper.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        helper.kill()
        helper.wait()


def _typed(path: Path) -> int:
    """A new named pipe, opened in both directions: so it has no end, whoever writes to it and leaves."""
    path.unlink(missing_ok=True)
    os.mkfifo(path, 0o600)
    return os.open(path, os.O_RDWR)


def _named(pid: int) -> dict[str, int]:
    return {"pid": pid, "started": start_ticks(pid)}


def _restore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _watch(
    logs: Mapping[BoundedLog, IO[bytes] | None],
    monitor: Monitor,
    notes: Notes,
    helper: subprocess.Popen[bytes] | None,
) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(monitor, selectors.EVENT_READ, "monitor")
        for log, stream in logs.items():
            log.write(b"")
            if stream is not None:
                selector.register(stream, selectors.EVENT_READ, log)
        while selector.get_map():
            for key, _ in selector.select():
                if key.data == "monitor":
                    open_still = monitor.hear(notes)
                else:
                    data = os.read(key.fd, 1 << 16)
                    key.data.write(data)
                    open_still = bool(data)
                if not open_still:
                    selector.unregister(key.fileobj)
                    if helper is not None and key.data == "monitor":
                        _end(helper)  # it ends by itself, unless QEMU never came to speak with it


def _report(message: object) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")
    # The controller waits for the end of this pipe.
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)


def main() -> None:
    """Read the job from standard input, leave the controller's process tree, keep."""
    job = json.load(sys.stdin)
    if os.fork():
        # The controller reaps this first process at once and never has a zombie of ours.
        os._exit(0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        keep(job)
    except OSError as reason:
        _report({"error": str(reason), "errno": reason.errno})


if __name__ == "__main__":
    main()
