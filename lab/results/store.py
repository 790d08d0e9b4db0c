"""Runs on disk: append-only writers, and a reader that loses nothing but the line that is wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from lab.contracts import Cell, Realness
from lab.errors import ConfigurationError, RunError
from lab.results import lines
from lab.results.documents import CellDocument, Document, JournalEvent, RunDocument
from lab.results.layout import AttemptLayout, RunLayout
from lab.results.lines import Problem
from lab.results.record import Record

_M = TypeVar("_M", bound=BaseModel)


class RecordFile:
    """The writer of one `records.jsonl`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, record: Record) -> None:
        """Add a record, whole or not at all. Raises `LabDiskFull`, `RunError`."""
        lines.append(self.path, record.line())


class Journal:
    """The writer of a run's `journal.jsonl`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, event: JournalEvent) -> None:
        """Add an event, whole or not at all. Raises `LabDiskFull`, `RunError`."""
        lines.append(self.path, event.line())


def write_document(path: Path, document: Document) -> None:
    """Put run.json or cell.json there, whole or not at all. Raises `LabDiskFull`, `RunError`."""
    lines.replace(path, document.text())


def write_json(path: Path, document: object) -> None:
    """Put a JSON file (plan.json) there, whole or not at all. Raises `LabDiskFull`, `RunError`."""
    lines.replace(path, json.dumps(document, indent=1) + "\n")


def read_journal(path: Path) -> tuple[Sequence[JournalEvent], Sequence[Problem]]:
    """The events of a journal, also while it is written. Raises `RunError` when the file cannot be read."""
    return _parse_lines(path, JournalEvent)


@dataclass(frozen=True)
class Attempt:
    """One attempt at one cell as it was read; `document` is missing when the attempt never got that far."""

    layout: AttemptLayout
    document: CellDocument | None
    records: tuple[Record, ...]
    problems: tuple[Problem, ...]

    @property
    def realness(self) -> Realness | None:
        if self.document is not None:
            return self.document.realness
        return self.records[0].realness if self.records else None


@dataclass(frozen=True)
class CellResult:
    """All attempts at one cell, first to last; there is at least one."""

    cell: Cell
    attempts: tuple[Attempt, ...]

    @property
    def last(self) -> Attempt:
        return self.attempts[-1]

    @property
    def records(self) -> tuple[Record, ...]:
        return tuple(record for attempt in self.attempts for record in attempt.records)


@dataclass(frozen=True)
class Planned:
    """A line of plan.json: what a run meant to do in one cell."""

    cell: str
    realness: str
    checks: tuple[str, ...]
    excluded: str | None  # why the cell was left out


@dataclass(frozen=True)
class Run:
    """A run as it was read. Reading happens once, at first use."""

    layout: RunLayout
    document: RunDocument
    plan: dict[str, Any] | None  # None: it was killed before it had a plan

    @staticmethod
    def open(path: Path) -> Run:
        """The run in that directory. Raises `RunError` when that is none."""
        layout = RunLayout(path)
        if not layout.run_json.is_file():
            raise RunError(f"{path} is not a run: it holds no run.json", hint="a run is a folder below reports/runs")
        document, problem = _parse_file(layout.run_json, RunDocument)
        if document is None:
            raise RunError(str(problem))
        return Run(layout, document, _read_plan(layout.plan_json))

    @property
    def id(self) -> str:
        return self.document.run

    def concluded(self, document: RunDocument) -> Run:
        """The same with another document; cells that were read already are not read again."""
        run = replace(self, document=document)
        if "_cells" in self.__dict__:
            run.__dict__["_cells"] = self._cells
        return run

    def cells(self) -> Sequence[CellResult]:
        """Every cell that has a directory, sorted."""
        return self._cells

    def records(self) -> Sequence[Record]:
        """Every record of every attempt, by cell, attempt and time of writing."""
        return [record for cell in self._cells for record in cell.records]

    def journal(self) -> Sequence[JournalEvent]:
        return self._journal[0]

    def planned(self) -> Sequence[Planned]:
        """What the run meant to do; empty when its plan is lost."""
        return self._planned

    def problems(self) -> Sequence[Problem]:
        """What could not be read, each with its file and line; the rest was."""
        own = [] if self.plan is not None else [Problem(self.layout.plan_json, None, "there is no readable plan")]
        of_cells = [problem for cell in self._cells for attempt in cell.attempts for problem in attempt.problems]
        return [*own, *self._journal[1], *of_cells]

    @cached_property
    def _cells(self) -> tuple[CellResult, ...]:
        attempts: dict[Cell, list[Attempt]] = {}
        for layout in self.layout.attempts():
            attempts.setdefault(layout.cell, []).append(read_attempt(layout, self.id))
        return tuple(CellResult(cell, tuple(found)) for cell, found in attempts.items())

    @cached_property
    def _planned(self) -> tuple[Planned, ...]:
        cells = self.plan["cells"] if self.plan else []
        found = (_planned(cell) for cell in cells if isinstance(cell, dict))
        return tuple(planned for planned in found if planned is not None)

    @cached_property
    def _journal(self) -> tuple[Sequence[JournalEvent], Sequence[Problem]]:
        return read_journal(self.layout.journal)


def read_attempt(layout: AttemptLayout, run: str) -> Attempt:
    """What one attempt left. A record that belongs elsewhere is a problem and is left out."""
    document: CellDocument | None = None
    problems: list[Problem] = []
    if layout.cell_json.exists():
        document, problem = _parse_file(layout.cell_json, CellDocument)
        problems += [problem] if problem else []
    records = []
    realness = document.realness if document else None
    for line in lines.read(layout.records):
        try:
            record = Record.parse(line.data)
        except ValidationError as reason:
            problems.append(Problem(layout.records, line.number, _said(reason)))
            continue
        realness = realness or record.realness
        misplaced = _misplaced(record, layout, run, realness)
        if misplaced:
            problems.append(Problem(layout.records, line.number, misplaced))
        else:
            records.append(record)
    return Attempt(layout, document, tuple(records), tuple(problems))


def _misplaced(record: Record, layout: AttemptLayout, run: str, realness: Realness) -> str:
    wanted: dict[str, object] = {"run": run, "cell": layout.cell.name, "attempt": layout.number, "realness": realness}
    for key, value in wanted.items():
        found = getattr(record, key)
        if found != value:
            return f"the record says {key} {str(found)!r}, its place says {str(value)!r}; left out"
    return ""


def _parse_lines(path: Path, model: type[_M]) -> tuple[Sequence[_M], Sequence[Problem]]:
    found: list[_M] = []
    problems: list[Problem] = []
    for line in lines.read(path):
        try:
            found.append(model.model_validate_json(line.data))
        except ValidationError as reason:
            problems.append(Problem(path, line.number, _said(reason)))
    return found, problems


def _parse_file(path: Path, model: type[_M]) -> tuple[_M | None, Problem | None]:
    try:
        return model.model_validate_json(path.read_bytes()), None
    except ValidationError as reason:
        return None, Problem(path, None, _said(reason))
    except OSError as reason:
        return None, Problem(path, None, f"cannot be read: {reason.strerror}")


def _read_plan(path: Path) -> dict[str, Any] | None:
    try:
        plan = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return plan if isinstance(plan, dict) and isinstance(plan.get("cells"), list) else None


def _planned(cell: dict[str, Any]) -> Planned | None:
    """A line of the plan; `None` for one whose name is none of a cell."""
    name, checks, excluded = str(cell.get("cell", "")), cell.get("checks"), cell.get("excluded")
    try:
        Cell.parse(name)
    except ConfigurationError:
        return None
    return Planned(
        cell=name,
        realness=str(cell.get("realness", "")),
        checks=tuple(str(check) for check in checks) if isinstance(checks, list) else (),
        excluded=None if excluded is None else str(excluded),
    )


def _said(reason: ValidationError) -> str:
    first = reason.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else first["msg"]
