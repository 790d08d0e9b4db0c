"""Kept: what is written down of each cell that somebody works in by hand, so that every shell finds it.

Each has a folder of its own below the lab's state: `up.json` once the cell is up, `known_hosts` for OpenSSH. The owner
mark of its machine names that folder, so that nobody takes the machine for what a dead run left.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, Field, ValidationError

from lab import locations, log, process
from lab.contracts import Cell, Owner
from lab.errors import LabBusy
from lab.results.record import FileModel

_log = log.get(__name__)

FOR = timedelta(hours=24)
"""How long a cell is kept up before `lab reap` takes it."""

_RUN = re.compile(r"by-hand-([0-9a-f]{10})")


class Document(FileModel):
    """`up.json`: a cell that is up, and how to get in."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    cell: str
    inventory: Path  # absolute
    machine: str  # its name on its host
    user: str
    port: int  # of the guest's SSH server, as the guest sees it
    host_key: str  # the public line that the lab gave to this guest
    warm: bool  # a restored copy
    since: AwareDatetime


@dataclass(frozen=True)
class Place:
    """The folder of one cell that is worked in by hand; there or not."""

    folder: Path

    @property
    def run(self) -> str:
        """What stands for a run in the owner mark of the machine."""
        return f"by-hand-{self.folder.name}"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    @property
    def log(self) -> Path:
        return self.folder / "up.log"

    def read(self) -> Document | None:
        """What is up here; `None` before it is and when the file is damaged."""
        try:
            return Document.model_validate_json((self.folder / "up.json").read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as reason:
            _log.warning("kept.unreadable", path=self.folder, reason=reason)
            return None

    def write(self, document: Document) -> None:
        """From now on the cell is up for every shell. Raises `LabDiskFull`."""
        draft = self.folder / ".up.json.draft"
        try:
            # The name that OpenSSH looks up is the machine's: its port may be another one tomorrow.
            self.known_hosts.write_text(f"{document.machine} {document.host_key}\n")
            self.known_hosts.chmod(0o600)
            draft.write_text(document.model_dump_json(by_alias=True, indent=1))
            draft.chmod(0o600)
            draft.replace(self.folder / "up.json")
        except OSError as reason:
            raise process.disk_full_or(reason, f"writing {self.folder}") from reason

    def make(self) -> None:
        """An empty folder that only this user can read. Raises `LabDiskFull`."""
        self.clear()
        try:
            self.folder.mkdir(parents=True, mode=0o700)
        except OSError as reason:
            raise process.disk_full_or(reason, f"making {self.folder}") from reason

    def clear(self) -> None:
        """Safe to call twice."""
        (self.folder / "up.json").unlink(missing_ok=True)  # first: what is not whole is not up
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only one who brings this cell up or puts it away. Raises `LabBusy`."""
        from filelock import FileLock, Timeout

        self.folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with FileLock(self.folder.with_suffix(".lock"), timeout=0):
                yield
        except Timeout:
            raise LabBusy(
                "another command brings this cell up or puts it away just now", hint="lab ls says when it is done"
            ) from None


def place_of(inventory: Path, cell: Cell) -> Place:
    """Where a cell of an inventory is kept."""
    digest = hashlib.sha256(f"{inventory.resolve()}\0{cell}".encode()).hexdigest()[:10]
    return Place(_home() / digest)


def place_of_owner(owner: Owner) -> Place | None:
    """Where the cell of a machine is kept; `None` when its owner is a run."""
    found = _RUN.fullmatch(owner.run)
    return None if found is None else Place(_home() / found[1])


def every() -> Iterator[tuple[Place, Document]]:
    """All cells that are up, the oldest first."""
    home = _home()
    places = [Place(path) for path in home.iterdir() if path.is_dir()] if home.is_dir() else []
    found = [(place, document) for place in places if (document := place.read()) is not None]
    yield from sorted(found, key=lambda each: each[1].since)


def is_left(owner: Owner, *, older_than: timedelta = FOR, now: datetime | None = None) -> bool:
    """Whether nobody answers any more for a machine that was made by hand: it is too old, or its `lab up` was killed.

    Raises `ValueError` when its owner is a run.
    """
    place = place_of_owner(owner)
    if place is None:
        raise ValueError(f"{owner.run} is a run")
    document = place.read()
    if document is None:
        return not process.is_alive(owner.pid, owner.pid_started)
    return (now or datetime.now(UTC)) - document.since > older_than


def _home() -> Path:
    return locations.state() / "by-hand"
