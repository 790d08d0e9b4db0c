"""The directory of one QEMU machine: its owner mark, what was asked of it, which process runs it.

A directory is a machine from the moment `machine.json` is whole in it; everything else may be missing.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lab import locations, log, process
from lab.contracts import Firmware, Image, MachineSpec, Owner, Profile
from lab.errors import HypervisorRefused, LabDiskFull
from lab.hypervisors._qemu_arguments import Plugged
from lab.hypervisors._qemu_keeper import BoundedLog

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_log = log.get(__name__)


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
    resized: bool = False  # the data disk grew, so it is not what the spec says
    warm_key: str = ""  # of the copy that it was started from


@dataclass(frozen=True)
class Running:
    """The process of a machine, as its keeper wrote it down."""

    pid: int
    started: int
    keeper_pid: int
    keeper_started: int

    def is_alive(self) -> bool:
        return process.is_alive(self.pid, self.started)


@dataclass(frozen=True)
class Events:
    """What the keeper noted since the last start."""

    resets: int = 0
    panicked: bool = False
    guest_shutdown: bool = False
    no_space: bool = False
    exit_status: int | None = None


class Directory:
    """The files of one machine."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def root(self) -> Path:
        return self.path / "root.qcow2"

    @property
    def data(self) -> Path:
        return self.path / "data.qcow2"

    @property
    def seed(self) -> Path:
        """The machine's own copy: the one that it was made from may be gone at the next start."""
        return self.path / "seed.raw"

    @property
    def seed_overlay(self) -> Path:
        return self.path / "seed.qcow2"

    @property
    def variables(self) -> Path:
        return self.path / "firmware-variables.qcow2"

    @property
    def console(self) -> BoundedLog:
        return BoundedLog(self.path / "console.log")

    def plugged(self, name: str) -> Path:
        return self.path / f"plugged-{name}.qcow2"

    def exists(self) -> bool:
        return (self.path / "machine.json").is_file()

    def make(self, mark: Mark) -> None:
        """Claim the directory. Raises `HypervisorRefused` when a machine is in it."""
        if self.exists():
            raise HypervisorRefused(f"a machine {mark.spec.name!r} exists already", hint="destroy it, or run lab reap")
        # What is there without a mark is left from a creation that was killed at once.
        shutil.rmtree(self.path, ignore_errors=True)
        try:
            self.path.mkdir(parents=True, mode=0o700)
        except OSError as reason:
            raise process.disk_full_or(reason, f"making {self.path}") from reason
        self.write(mark)

    def read(self) -> Mark:
        """Raises `HypervisorRefused` when the machine was destroyed."""
        try:
            content = json.loads((self.path / "machine.json").read_text())
        except FileNotFoundError:
            raise HypervisorRefused(f"machine {self.path.name!r} is gone: it was destroyed") from None
        return _mark_of(content)

    def write(self, mark: Mark) -> None:
        """Whole or not at all."""
        draft = self.path / ".machine.json.draft"
        content = {**asdict(mark), "schema": 1, "forwards": {str(k): v for k, v in mark.forwards.items()}}
        try:
            draft.write_text(json.dumps(content, indent=1, default=str))
            draft.replace(self.path / "machine.json")
        except OSError as reason:
            raise process.disk_full_or(reason, f"writing {self.path / 'machine.json'}") from reason

    def change(self, **changes: Any) -> Mark:
        """Read, replace, write."""
        mark = replace(self.read(), **changes)
        self.write(mark)
        return mark

    def running(self) -> Running | None:
        """The process that was started last, dead or alive; `None` before the first start."""
        content = self._json("process.json")
        if content is None:
            return None
        keeper = content["keeper"]
        return Running(content["pid"], content["started"], keeper["pid"], keeper["started"])

    def forget_process(self) -> None:
        (self.path / "process.json").unlink(missing_ok=True)

    def events(self) -> Events:
        content = self._json("events.json")
        if content is None:
            return Events()
        shutdown = content["shutdown"] or {}
        return Events(
            resets=content["resets"],
            panicked=content["panicked"],
            guest_shutdown=bool(shutdown.get("guest")),
            no_space=content["no_space"],
            exit_status=content["exit"],
        )

    def complaint(self) -> str:
        """The end of what QEMU wrote to standard error."""
        text = BoundedLog(self.path / "stderr.log").read().decode(errors="replace")
        return " ".join(text.split("\n")[-12:]).strip()[-1500:]

    def remove(self) -> None:
        """Take the mark away last, so that a removal that is interrupted can be found and finished."""
        if not self.path.exists():
            return
        for path in self.path.iterdir():
            if path.name != "machine.json":
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)

    def _json(self, name: str) -> Any:
        try:
            return json.loads((self.path / name).read_text())
        except FileNotFoundError:
            return None


def of_host(host: str) -> Path:
    """Where the machines of a host are."""
    return locations.state() / "machines" / "qemu" / _checked(host)


def directory_of(host: str, machine: str) -> Directory:
    return Directory(of_host(host) / _checked(machine))


def every(host: str) -> Iterator[tuple[Mark, Directory]]:
    """Every machine of a host, those of dead controllers too, by name."""
    folder = of_host(host)
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        directory = Directory(path)
        if not directory.exists():
            continue
        try:
            yield directory.read(), directory
        except (ValueError, KeyError, TypeError) as reason:
            _log.warning("machine.unreadable", path=path, reason=reason)


def require_space(path: Path, needed_bytes: int, what: str) -> None:
    """Raise `LabDiskFull` before something is begun that the disk cannot hold."""
    free = shutil.disk_usage(path).free
    if free < needed_bytes:
        raise LabDiskFull(
            f"{what} needs {needed_bytes >> 20} MiB below {path}, {free >> 20} MiB are free",
            hint="free some space, or point XDG_CACHE_HOME and XDG_STATE_HOME at a larger disk",
        )


def _checked(name: str) -> str:
    # A name becomes a directory: nothing of it may climb out.
    if not _SAFE_NAME.fullmatch(name):
        raise HypervisorRefused(f"{name!r} cannot be the name of a machine")
    return name


def _path(value: str | None) -> Path | None:
    return None if value is None else Path(value)


def _mark_of(content: Mapping[str, Any]) -> Mark:
    spec, image = content["spec"], content["spec"]["image"]
    paths = {"disk": Path(image["disk"]), "kernel": _path(image["kernel"]), "initrd": _path(image["initrd"])}
    profile = {**spec["profile"], "firmware": Firmware(spec["profile"]["firmware"])}
    return Mark(
        spec=MachineSpec(
            name=spec["name"],
            owner=Owner(**spec["owner"]),
            image=Image(**{**image, **paths}),
            profile=Profile(**profile),
            seed=_path(spec["seed"]),
            data_disk_mib=spec["data_disk_mib"],
        ),
        binary=content["binary"],
        accelerator=content["accelerator"],
        cpu_model=content["cpu_model"],
        fixed_port=content["fixed_port"],
        wanted=content["wanted"],
        forwards={int(guest): here for guest, here in content["forwards"].items()},
        disks=tuple(Plugged(**plugged) for plugged in content["disks"]),
        nics=tuple(Plugged(**plugged) for plugged in content["nics"]),
        resized=content["resized"],
        warm_key=content["warm_key"],
    )
