"""The directory of one QEMU machine: its owner mark, what was asked of it, which process runs it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lab import process
from lab.contracts import MachineSpec
from lab.errors import LabDiskFull
from lab.hypervisors import _machine_directory as files
from lab.hypervisors._qemu_keeper import BoundedLog
from lab.hypervisors._qemu_plugged import Equipment, Module, Plugged, Processor, equipment

_DRIVER = "qemu"
PLACES: Mapping[str, str] = {
    "": "first",
    "second": "second",
}  # folders of a machine's directory, and what they are called


@dataclass(frozen=True)
class Move:
    """A live migration that is under way."""

    other: str  # the place that is not, or no longer, the machine's
    arrived: bool  # the machine is where it was brought
    pid: int  # the process that carries it out, and when it started
    started: int


@dataclass(frozen=True)
class Mark:
    """What `machine.json` holds."""

    spec: MachineSpec
    binary: str
    accelerator: str
    cpu_model: str
    fixed_port: int = 0  # of 127.0.0.1, leads to SSH; 0 for any free one
    wanted: str = "stopped"  # "stopped" or "running": what the lab asked last
    forwards: Mapping[int, int] = field(default_factory=dict)  # TCP port of the guest: port of 127.0.0.1
    disks: tuple[Plugged, ...] = ()
    nics: tuple[Plugged, ...] = ()
    processors: tuple[Processor, ...] = ()
    modules: tuple[Module, ...] = ()
    kept: Mapping[str, Equipment] = field(default_factory=dict)  # by snapshot: what was plugged in when it was taken
    resized: bool = False  # the data disk grew, so it is not what the spec says
    warm_key: str = ""  # of the copy that it was started from
    saved: bool = False  # it is asleep: the next start goes on with the memory that is in a file
    place: str = ""  # the folder of its disks and its process
    move: Move | None = None
    resets: int = 0  # those that were counted at places where it was since it was started
    fired: int = 0  # the same of the watchdog


@dataclass(frozen=True)
class Running:
    """The process of a machine, as its keeper wrote it down."""

    pid: int
    started: int
    keeper_pid: int
    keeper_started: int
    tpm_pid: int = 0  # 0: it has none
    tpm_started: int = 0

    def is_alive(self) -> bool:
        return process.is_alive(self.pid, self.started)


@dataclass(frozen=True)
class Events:
    """What the keeper noted since the last start."""

    resets: int = 0
    fired: int = 0  # the watchdog
    panicked: bool = False
    guest_shutdown: bool = False
    no_space: bool = False
    exit_status: int | None = None


class Directory:
    """The files of one machine."""

    def __init__(self, path: Path, place: str | None = None) -> None:
        self.path = path
        self._place = place

    @property
    def here(self) -> Path:
        """Where the disks are and the process runs: the directory itself, or one in it after a live migration."""
        if self._place is None:
            content = files.read(self.path / files.MARK) or {"place": ""}
            return self.path / str(content.get("place", ""))
        return self.path / self._place

    def at(self, place: str) -> Directory:
        """The same machine as it is, was or will be at that place."""
        return Directory(self.path, place)

    def places(self) -> tuple[str, ...]:
        """Every place that a process of this machine may be at."""
        return tuple(place for place in PLACES if (self.path / place).is_dir())

    @property
    def root(self) -> Path:
        return self.here / "root.qcow2"

    @property
    def data(self) -> Path:
        return self.here / "data.qcow2"

    @property
    def seed(self) -> Path:
        """The machine's own copy: the one that it was made from may be gone at the next start."""
        return self.path / "seed.raw"

    @property
    def seed_overlay(self) -> Path:
        return self.here / "seed.qcow2"

    @property
    def variables(self) -> Path:
        return self.here / "firmware-variables.qcow2"

    @property
    def boot(self) -> Path:
        """What the firmware starts from, where that is not the root disk."""
        return self.path / "boot.raw"

    @property
    def console(self) -> BoundedLog:
        return BoundedLog(self.path / "console.log")

    @property
    def saved(self) -> Path:
        """The memory of a machine that is asleep."""
        return self.path / "saved-memory"

    def plugged(self, name: str) -> Path:
        return self.here / f"plugged-{name}.qcow2"

    def exists(self) -> bool:
        return files.is_marked(self.path)

    def make(self, mark: Mark) -> None:
        """Claim the directory. Raises `HypervisorRefused` when a machine is in it."""
        files.claim(self.path, mark.spec.name, _content_of(mark))

    def read(self) -> Mark:
        """Raises `HypervisorRefused` when the machine was destroyed."""
        return _mark_of(files.read_mark(self.path))

    def write(self, mark: Mark) -> None:
        """Whole or not at all."""
        files.write_mark(self.path, _content_of(mark))

    def change(self, **changes: Any) -> Mark:
        """Read, replace, write."""
        mark = replace(self.read(), **changes)
        self.write(mark)
        return mark

    def equipment(self) -> Equipment:
        """What is plugged in now."""
        mark = self.read()
        return Equipment(mark.disks, mark.nics, mark.processors, mark.modules)

    def running(self) -> Running | None:
        """The process that was started last, dead or alive; `None` before the first start."""
        content = files.read(self.here / "process.json")
        if content is None:
            return None
        keeper, tpm = content["keeper"], content.get("tpm") or {"pid": 0, "started": 0}
        return Running(content["pid"], content["started"], keeper["pid"], keeper["started"], tpm["pid"], tpm["started"])

    def forget_process(self) -> None:
        (self.here / "process.json").unlink(missing_ok=True)

    def forget_saved(self) -> None:
        """Safe to call twice."""
        if self.read().saved:
            self.change(saved=False)
        self.saved.unlink(missing_ok=True)

    def events(self) -> Events:
        content = files.read(self.here / "events.json")
        if content is None:
            return Events()
        shutdown = content["shutdown"] or {}
        return Events(
            resets=content["resets"],
            fired=content.get("fired", 0),
            panicked=content["panicked"],
            guest_shutdown=bool(shutdown.get("guest")),
            no_space=content["no_space"],
            exit_status=content["exit"],
        )

    def complaint(self) -> str:
        """The end of what QEMU wrote to standard error."""
        text = BoundedLog(self.here / "stderr.log").read().decode(errors="replace")
        return " ".join(text.split("\n")[-12:]).strip()[-1500:]

    def remove(self) -> None:
        """Take the mark away last, so that a removal that is interrupted can be found and finished."""
        files.remove(self.path)


def of_host(host: str) -> Path:
    """Where the machines of a host are."""
    return files.of_host(_DRIVER, host)


def directory_of(host: str, machine: str) -> Directory:
    return Directory(files.of_machine(_DRIVER, host, machine))


def every(host: str) -> Iterator[tuple[Mark, Directory]]:
    """Every machine of a host, those of dead controllers too, by name."""
    for path, mark in files.every(_DRIVER, host, lambda path: Directory(path).read()):
        yield mark, Directory(path)


def require_space(path: Path, needed_bytes: int, what: str) -> None:
    """Raise `LabDiskFull` before something is begun that the disk cannot hold."""
    free = shutil.disk_usage(path).free
    if free < needed_bytes:
        raise LabDiskFull(
            f"{what} needs {needed_bytes >> 20} MiB below {path}, {free >> 20} MiB are free",
            hint="free some space, or point XDG_CACHE_HOME and XDG_STATE_HOME at a larger disk",
        )


def _content_of(mark: Mark) -> Mapping[str, Any]:
    return {**asdict(mark), "forwards": {str(guest): here for guest, here in mark.forwards.items()}}


def _mark_of(content: Mapping[str, Any]) -> Mark:
    # What an older lab left behind lacks some of it and must be found all the same.
    return Mark(
        spec=files.spec_of(content["spec"]),
        binary=content["binary"],
        accelerator=content["accelerator"],
        cpu_model=content["cpu_model"],
        fixed_port=content["fixed_port"],
        wanted=content["wanted"],
        forwards={int(guest): here for guest, here in content["forwards"].items()},
        **vars(equipment(content)),
        kept={name: equipment(entry) for name, entry in content.get("kept", {}).items()},
        resized=content["resized"],
        warm_key=content["warm_key"],
        saved=content.get("saved", False),
        place=_known_place(content.get("place", "")),
        move=None if content.get("move") is None else Move(**content["move"]),
        resets=content.get("resets", 0),
        fired=content.get("fired", 0),
    )


def _known_place(place: str) -> str:
    if place not in PLACES:
        raise ValueError(f"{place!r} is not a place of a machine")
    return place
