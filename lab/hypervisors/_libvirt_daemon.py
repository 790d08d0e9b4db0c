"""A libvirtd of the lab's own: unprivileged, in a folder of its own, started when it is needed, gone when it is not.

Nobody's settings or machines are touched by it. It ends by itself when no machine runs and nobody is connected. Of root
it is run in a user namespace as an ordinary user, because a libvirtd of root is the one of the whole system.
"""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from lab import locations, log, process, waiting
from lab.errors import HostError, WaitedTooLong

PLACES = ("first", "second")
_IDLE_S = 120
_START_S = 60.0
# Below the home libvirt puts c/libvirt/qemu/channel/target/domain-ID-NAME/org.qemu.guest_agent.0: 107 in all (unix(7)).
_SHORTEST = 21
_SHOWN = 1500
# Of each console: so many files of so many bytes, the oldest is thrown away for the next.
LOG_BYTES, LOG_PARTS = 16 << 20, 4
_PARENT = Path(__file__).with_name("_libvirt_parent.py")
_log = log.get(__name__)


@dataclass(frozen=True)
class OwnDaemon:
    """One of them, by its folder."""

    folder: Path
    place: str  # two of a host are two places that machines move between

    @property
    def home(self) -> Path:
        return self.folder / self.place

    @property
    def uri(self) -> str:
        return f"qemu+unix:///session?socket={quote(str(self._short() / 'r/libvirt/libvirt-sock'), safe='/')}"

    def is_there(self) -> bool:
        """Whether it was ever started: then machines may be in it."""
        return self.home.is_dir()

    def ensure(self) -> None:
        """Start it unless it answers. Raises `HostError`, `MissingTool`."""
        from filelock import FileLock

        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(self.home / "start.lock", timeout=_START_S * 2):
            if not self._answers():
                self._start()

    def pid(self) -> int | None:
        """Of the running daemon; `None` when there is none."""
        try:
            return int((self.home / "r/libvirt/libvirtd.pid").read_text())
        except (OSError, ValueError):
            return None

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self._short() / "r/libvirt/libvirt-sock"))
            except OSError:
                return False
        return True

    def _start(self) -> None:
        program = process.find("libvirtd", package="libvirt-daemon")
        # libvirtd starts it, and would say less when it is not there.
        process.find("virtlogd", package="libvirt-daemon")
        environment = {**os.environ, "HOME": str(self._short())}
        for variable, name in (
            ("RUNTIME_DIR", "r"),
            ("CONFIG_HOME", "c"),
            ("CACHE_HOME", "k"),
            ("DATA_HOME", "d"),
        ):
            (self.home / name).mkdir(exist_ok=True, mode=0o700)
            environment[f"XDG_{variable}"] = str(self._short() / name)
        self._configure()
        # Not 0 inside: libvirt decides by that whether it is the system's daemon or a user's.
        as_user = []
        if os.geteuid() == 0:
            as_user = [process.find("unshare", package="util-linux"), "--user", "--map-user=1000", "--map-group=1000"]
        log_file = self.home / "libvirtd.log"
        with log_file.open("wb") as said:
            started = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_PARENT), *as_user, program, "--timeout", str(_IDLE_S)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
                cwd="/",
            )
        try:
            waiting.until(
                lambda: self._answers() or started.poll() is not None, what="libvirtd to answer", timeout_s=_START_S
            )
        except WaitedTooLong as reason:
            process.end(started)
            raise HostError(f"{reason}: {self._said()}", hint=f"its log is {log_file}") from reason
        if started.poll() is not None and not self._answers():
            raise HostError(
                f"libvirtd ended with status {started.returncode} while starting: {self._said()}",
                hint=f"its log is {log_file}",
            )
        _log.info("libvirtd.started", place=self.place, folder=self.home, pid=started.pid)

    def _configure(self) -> None:
        settings = self.home / "c/libvirt"
        settings.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not (settings / "libvirtd.conf").is_file():
            # Two daemons of one machine refuse to move a guest to each other when they say they are the same host.
            (settings / "libvirtd.conf").write_text(f'host_uuid = "{uuid.uuid4()}"\n')
        # virtlogd writes consoles and what QEMU says: a guest that never stops talking fills no disk.
        (settings / "qemu.conf").write_text('stdio_handler = "logd"\n')
        kept = f"max_size = {LOG_BYTES}\nmax_backups = {LOG_PARTS - 1}\n"
        (settings / "virtlogd.conf").write_text(kept)

    def _said(self) -> str:
        text = (self.home / "libvirtd.log").read_text(errors="replace")
        return " ".join(text.split())[-_SHOWN:] or "it said nothing"

    def _short(self) -> Path:
        """A short name of the home, because of the sockets."""
        if len(str(self.home)) <= _SHORTEST:
            return self.home
        folder = Path("/tmp") / f"lab-{os.geteuid()}"  # noqa: S108  checked below
        folder.mkdir(exist_ok=True, mode=0o700)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise HostError(f"{folder} is not a folder that belongs to this user alone", hint="remove it")
        name = folder / hashlib.sha256(str(self.home).encode()).hexdigest()[:6]
        if not name.is_symlink() or name.readlink() != self.home:
            draft = folder / f".{name.name}.{os.getpid()}"
            draft.unlink(missing_ok=True)
            draft.symlink_to(self.home)
            draft.replace(name)
        return name


def folder_of(host: str) -> Path:
    """Where the daemons and the machines of a host are."""
    return locations.state() / "libvirt" / host


def daemons_of(host: str) -> tuple[OwnDaemon, ...]:
    """The two daemons of a host: the first has new machines, the second those that moved."""
    return tuple(OwnDaemon(folder_of(host), place) for place in PLACES)
