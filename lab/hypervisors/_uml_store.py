"""The directory of one User-Mode Linux machine: its owner mark, its files, which process holds it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lab import process
from lab.contracts import MachineSpec
from lab.hypervisors import _machine_directory as files
from lab.hypervisors import _uml_console as console
from lab.hypervisors import _uml_warden as warden

_DRIVER = "uml"


@dataclass(frozen=True)
class Mark:
    """What `machine.json` holds."""

    spec: MachineSpec
    program: str  # path of linux.uml
    base: Path  # the raw disk below the copy-on-write file
    preload: Path | None  # see `_uml_xstate`


@dataclass(frozen=True)
class Holder:
    """The warden's process."""

    pid: int
    started: int

    def is_alive(self) -> bool:
        return process.is_alive(self.pid, self.started)

    def end(self) -> None:
        """End it, and with it all of the machine. Safe to call twice."""
        process.end_by_id(self.pid, self.started)


@dataclass(frozen=True)
class Ended:
    """How linux.uml ended."""

    status: int  # negative for a signal
    restart_withheld: bool  # the guest rebooted when the lab wanted it to shut down


@dataclass(frozen=True)
class Plugged:
    """A disk or a network card that came while the machine ran."""

    kind: str  # "disk" or "nic"
    name: str
    slot: int
    word: str  # of linux.uml's command line
    network: str = ""  # folder of the network that a card shares with other machines


class Directory:
    """The files of one machine."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def root(self) -> Path:
        """What the guest changed of its root disk."""
        return self.path / "root.cow"

    @property
    def seed(self) -> Path:
        return self.path / "seed.raw"

    @property
    def data(self) -> Path:
        return self.path / "data.raw"

    def plug(self, slot: int) -> Path:
        """The file of a disk that may come while the machine runs; empty as long as it did not."""
        return self.path / f"plugged-{slot}.raw"

    @property
    def snapshots(self) -> Path:
        return self.path / "snapshots"

    @property
    def paused(self) -> Path:
        """There while the machine stands still."""
        return self.path / "paused"

    def exists(self) -> bool:
        return files.is_marked(self.path)

    def make(self, mark: Mark) -> None:
        """Claim the directory. Raises `HypervisorRefused` when a machine is in it."""
        files.claim(self.path, mark.spec.name, asdict(mark))

    def read(self) -> Mark:
        """Raises `HypervisorRefused` when the machine was destroyed."""
        return _mark_of(files.read_mark(self.path))

    def holder(self) -> Holder | None:
        """The warden that was started last, dead or alive; `None` when the lab wants the machine stopped."""
        content = files.read(self.path / warden.PROCESS_FILE)
        return None if content is None else Holder(content["pid"], content["started"])

    def ended(self) -> Ended | None:
        """How linux.uml ended; `None` when it runs or nobody lived to see its end."""
        content = files.read(self.path / warden.ENDED_FILE)
        return None if content is None else Ended(**content)

    def ports(self) -> Mapping[int, int]:
        """Port of the guest: port of 127.0.0.1, of those that were asked for since the last start."""
        return {int(guest): int(here) for guest, here in (files.read(self.path / "ports.json") or {}).items()}

    def keep_ports(self, ports: Mapping[int, int]) -> None:
        files.write(self.path / "ports.json", dict(ports))

    def plugged(self) -> tuple[Plugged, ...]:
        return tuple(Plugged(**one) for one in files.read(self.path / warden.PLUGGED_FILE) or ())

    def keep_plugged(self, plugged: tuple[Plugged, ...]) -> None:
        files.write(self.path / warden.PLUGGED_FILE, [asdict(one) for one in plugged])

    def network(self, run: str, name: str) -> Path:
        """The folder of a network that machines of this host and run share; made or not."""
        # No machine's name begins with a dot, so this is nobody's directory.
        digest = hashlib.sha256(f"{run}\0{name}".encode()).hexdigest()[:24]
        return self.path.parent / ".networks" / digest

    def leave(self, network: Path) -> None:
        """Take what a machine that ended has left there, and the folder after the last one. Safe to call twice."""
        (network / self.path.name).unlink(missing_ok=True)
        with suppress(OSError):  # others are there
            network.rmdir()
            network.parent.rmdir()

    def forget_run(self) -> None:
        """Remove what the last run left, so that nothing of it is taken for the next one's."""
        for name in (warden.PROCESS_FILE, warden.ENDED_FILE, warden.RESETS_FILE, "ports.json", warden.CONTROL_SOCKET):
            (self.path / name).unlink(missing_ok=True)
        self.paused.unlink(missing_ok=True)

    def resets(self) -> int:
        """How often linux.uml started again since the machine was started."""
        content = files.read(self.path / warden.RESETS_FILE)
        return 0 if content is None else int(content["resets"])

    def console(self) -> bytes:
        return console.read(self.path)

    def last_words(self) -> str:
        """The end of the console, for a message."""
        text = self.console()[-4096:].decode(errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        # A kernel's stack dump hides the sentence that says why.
        told = [line for line in lines if not re.match(r"\[?<?[0-9a-f]{8,}|Call Trace|Stack:", line)]
        return repr(" | ".join(told[-6:])[-600:]) if told else "nothing"

    def remove(self) -> None:
        """Take the mark away last, so that a removal that is interrupted can be found and finished."""
        if self.path.exists():
            for one in self.plugged():
                if one.network:
                    self.leave(Path(one.network))
        files.remove(self.path)


def directory_of(host: str, machine: str) -> Directory:
    return Directory(files.of_machine(_DRIVER, host, machine))


def every(host: str) -> Iterator[tuple[Mark, Directory]]:
    """Every machine of a host, those of dead controllers too, by name."""
    for path, mark in files.every(_DRIVER, host, lambda path: Directory(path).read()):
        yield mark, Directory(path)


def _mark_of(content: Mapping[str, Any]) -> Mark:
    return Mark(
        spec=files.spec_of(content["spec"]),
        program=content["program"],
        base=Path(content["base"]),
        preload=files.path_of(content["preload"]),
    )
