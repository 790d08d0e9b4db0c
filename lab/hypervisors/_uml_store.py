"""The directory of one User-Mode Linux machine: its owner mark, its files, which process holds it.

A directory is a machine from the moment `machine.json` is whole in it; everything else may be missing.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lab import locations, log, process
from lab.contracts import Firmware, Image, MachineSpec, Owner, Profile
from lab.errors import HypervisorRefused
from lab.hypervisors import _uml_console as console
from lab.hypervisors import _uml_warden as warden

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_log = log.get(__name__)


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
        return (self.path / "machine.json").is_file()

    def make(self, mark: Mark) -> None:
        """Claim the directory. Raises `HypervisorRefused` when a machine is in it."""
        if self.exists():
            raise HypervisorRefused(f"a machine {mark.spec.name!r} exists already", hint="destroy it, or run lab reap")
        # What is there without a mark is left from a creation that was killed at once.
        shutil.rmtree(self.path, ignore_errors=True)
        try:
            self.path.mkdir(parents=True, mode=0o700)
            draft = self.path / ".machine.json.draft"
            draft.write_text(json.dumps({"schema": 1, **asdict(mark)}, indent=1, default=str))
            draft.replace(self.path / "machine.json")
        except OSError as reason:
            raise process.disk_full_or(reason, f"making {self.path}") from reason

    def read(self) -> Mark:
        """Raises `HypervisorRefused` when the machine was destroyed."""
        try:
            content = json.loads((self.path / "machine.json").read_text())
        except FileNotFoundError:
            raise HypervisorRefused(f"machine {self.path.name!r} is gone: it was destroyed") from None
        return _mark_of(content)

    def holder(self) -> Holder | None:
        """The warden that was started last, dead or alive; `None` when the lab wants the machine stopped."""
        content = self._json(warden.PROCESS_FILE)
        return None if content is None else Holder(content["pid"], content["started"])

    def ended(self) -> Ended | None:
        """How linux.uml ended; `None` when it runs or nobody lived to see its end."""
        content = self._json(warden.ENDED_FILE)
        return None if content is None else Ended(**content)

    def ports(self) -> Mapping[int, int]:
        """Port of the guest: port of 127.0.0.1, of those that were asked for since the last start."""
        return {int(guest): int(here) for guest, here in (self._json("ports.json") or {}).items()}

    def keep_ports(self, ports: Mapping[int, int]) -> None:
        draft = self.path / ".ports.json.draft"
        draft.write_text(json.dumps(dict(ports)))
        draft.replace(self.path / "ports.json")

    def plugged(self) -> tuple[Plugged, ...]:
        return tuple(Plugged(**one) for one in self._json(warden.PLUGGED_FILE) or ())

    def keep_plugged(self, plugged: tuple[Plugged, ...]) -> None:
        draft = self.path / ".plugged.json.draft"
        draft.write_text(json.dumps([asdict(one) for one in plugged]))
        draft.replace(self.path / warden.PLUGGED_FILE)

    def forget_run(self) -> None:
        """Remove what the last run left, so that nothing of it is taken for the next one's."""
        for name in (warden.PROCESS_FILE, warden.ENDED_FILE, warden.RESETS_FILE, "ports.json", warden.CONTROL_SOCKET):
            (self.path / name).unlink(missing_ok=True)
        self.paused.unlink(missing_ok=True)

    def resets(self) -> int:
        """How often linux.uml started again since the machine was started."""
        content = self._json(warden.RESETS_FILE)
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
        if not self.path.exists():
            return
        for path in self.path.iterdir():
            if path.name != "machine.json":
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)

    def _json(self, name: str) -> Any:
        try:
            return json.loads((self.path / name).read_text())
        except FileNotFoundError:
            return None


def of_host(host: str) -> Path:
    """Where the machines of a host are."""
    return locations.state() / "machines" / "uml" / _checked(host)


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
    return Mark(
        spec=MachineSpec(
            name=spec["name"],
            owner=Owner(**spec["owner"]),
            image=Image(**{**image, **paths}),
            profile=Profile(**{**spec["profile"], "firmware": Firmware(spec["profile"]["firmware"])}),
            seed=_path(spec["seed"]),
            data_disk_mib=spec["data_disk_mib"],
        ),
        program=content["program"],
        base=Path(content["base"]),
        preload=_path(content["preload"]),
    )
