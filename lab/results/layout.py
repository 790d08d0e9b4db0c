"""Where everything of a run lies below its directory; the names are an interface (docs/reference/run-directory.md)."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from lab import process
from lab.contracts import NAME_PATTERN, Cell

RUN_ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{4}")
_DRAFT = re.compile(rf"\.{RUN_ID.pattern}\.(\d+)\.(\d+)")
_ATTEMPT = re.compile(r"attempt-([1-9]\d{0,3})")


def new_run_id(now: datetime) -> str:
    """A name for a run that sorts by time; the tail keeps two runs of one second apart."""
    return f"{now.astimezone(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def run_directory(reports: Path, run: str) -> Path:
    """Where the run of that id lies below the folder `reports`."""
    return reports / "runs" / run


def run_directories(reports: Path) -> Sequence[Path]:
    """The directories of all runs below the folder `reports`, oldest first."""
    folder = reports / "runs"
    if not folder.is_dir():
        return ()
    return sorted(path for path in folder.iterdir() if RUN_ID.fullmatch(path.name) and path.is_dir())


@contextmanager
def appearing(root: Path) -> Iterator[RunLayout]:
    """A folder to write the first files of a run into; at the end of the block it is the run, whole.

    A process that is killed meanwhile leaves a hidden folder, which the next one removes. Raises `LabDiskFull`,
    `CommandFailed`.
    """
    draft = root.with_name(f".{root.name}.{os.getpid()}.{process.start_time(os.getpid())}")
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        _clear_dead_drafts(root.parent)
        draft.mkdir()
        yield RunLayout(draft)
        draft.rename(root)
    except OSError as reason:
        raise process.disk_full_or(reason, f"making {root}") from reason
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _clear_dead_drafts(folder: Path) -> None:
    for entry in folder.iterdir():
        owner = _DRAFT.fullmatch(entry.name)
        if owner and not process.is_alive(int(owner[1]), int(owner[2])):
            shutil.rmtree(entry, ignore_errors=True)


@dataclass(frozen=True, order=True)
class AttemptLayout:
    """The files of one attempt at one cell."""

    root: Path
    cell: Cell
    number: int  # from 1

    @property
    def records(self) -> Path:
        return self.root / "records.jsonl"

    @property
    def cell_json(self) -> Path:
        return self.root / "cell.json"

    @property
    def console(self) -> Path:
        return self.root / "console.log"

    @property
    def cell_log(self) -> Path:
        return self.root / "cell.log"

    @property
    def kernel_log(self) -> Path:
        return self.root / "kernel.log"

    @property
    def reproduce(self) -> Path:
        return self.root / "reproduce.txt"

    @property
    def evidence(self) -> Path:
        return self.root / "evidence"

    @property
    def cells(self) -> Path:
        """The folder of all cells of the run."""
        return self.root.parents[3]


@dataclass(frozen=True)
class RunLayout:
    """The files of one run."""

    root: Path

    @property
    def run_json(self) -> Path:
        return self.root / "run.json"

    @property
    def plan_json(self) -> Path:
        return self.root / "plan.json"

    @property
    def journal(self) -> Path:
        return self.root / "journal.jsonl"

    @property
    def junit(self) -> Path:
        return self.root / "junit.xml"

    @property
    def allure_results(self) -> Path:
        return self.root / "allure-results"

    @property
    def cells(self) -> Path:
        return self.root / "cells"

    def attempt(self, cell: Cell, number: int) -> AttemptLayout:
        """Where an attempt lies, made or not. The names of a cell cannot leave the directory (`NAME_PATTERN`)."""
        parts = (cell.host, cell.guest, cell.profile)
        if not all(NAME_PATTERN.fullmatch(part) for part in parts):
            raise ValueError(f"{cell.name!r} is not a name of a cell")
        return AttemptLayout(self.cells.joinpath(*parts, f"attempt-{number}"), cell, number)

    def attempts(self) -> Sequence[AttemptLayout]:
        """Every attempt that has a directory, by cell and number; other names in there are not ours and left out."""
        found = []
        for host in _folders(self.cells):
            for guest in _folders(host):
                for profile in _folders(guest):
                    found += _attempts_in(profile, Cell(host.name, guest.name, profile.name))
        return sorted(found, key=lambda attempt: (attempt.cell, attempt.number))


def _folders(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return [entry for entry in path.iterdir() if NAME_PATTERN.fullmatch(entry.name) and entry.is_dir()]


def _attempts_in(path: Path, cell: Cell) -> list[AttemptLayout]:
    matches = [(entry, _ATTEMPT.fullmatch(entry.name)) for entry in _folders(path)]
    return [AttemptLayout(entry, cell, int(match[1])) for entry, match in matches if match is not None]


def inside(root: Path, relative: str) -> Path | None:
    """The existing file that an evidence path names below `root`, or `None` when it leads elsewhere or to nothing.

    Evidence paths come from files that anybody may have edited, so they are not trusted.
    """
    pure = PurePosixPath(relative)
    if "\0" in relative or pure.is_absolute() or ".." in pure.parts or not pure.parts:
        return None
    path = root / pure
    try:
        resolved = path.resolve(strict=True)
    except (OSError, RuntimeError):
        return None
    return path if resolved.is_file() and resolved.is_relative_to(root.resolve()) else None
