"""Resume: what an earlier, killed part of a run has finished, what it left half done, what is to be done again."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab import log, process
from lab.contracts import Cell
from lab.errors import Blame, LabBusy, RunError
from lab.results import store
from lab.results.documents import JournalEvent
from lab.results.layout import AttemptLayout, RunLayout
from lab.results.record import Outcome, Record
from lab.runner.plan import Plan, PlannedCell, longest_host_first

_log = log.get(__name__)

_JUDGED_BADLY = frozenset({Outcome.FAILED, Outcome.BROKEN, Outcome.BLOCKED})
_SPOILT_BY = frozenset({Blame.LAB, Blame.CONFIGURATION})
_DRAFT = re.compile(r"\.[A-Za-z0-9._-]+\.\d+")  # what `lines.replace` and the exports rename into place


@dataclass(frozen=True)
class Earlier:
    """What the journal of a run knows."""

    finished: Mapping[Cell, int]  # the last finished attempt of each cell that ended
    half_done: Mapping[Cell, int]  # the attempt that each other begun cell was in
    controllers: tuple[tuple[int, int], ...]  # id and start time
    cells: tuple[tuple[int, int], ...]  # likewise, of the cells' processes
    attempts: int = 1  # that a failing cell was allowed
    cold: bool = False  # no machine was to be started from a saved copy


NOTHING = Earlier({}, {}, (), ())
"""Of a run that begins."""


@dataclass(frozen=True)
class ToDo:
    """One cell that the rest of a run has to do."""

    planned: PlannedCell
    attempt: int


def read(layout: RunLayout) -> Earlier:
    """Read the journal. Raises `RunError` when the run never got as far as its plan."""
    if not layout.journal.is_file() and not layout.plan_json.is_file():
        raise RunError(f"{layout.root} has no journal to resume from", hint="start a new run: lab run INVENTORY")
    events, problems = store.read_journal(layout.journal)
    for problem in problems:
        _log.warning("journal.problem", problem=problem)
    finished: dict[Cell, int] = {}
    begun: dict[Cell, int] = {}
    for event in events:
        if event.cell is None or event.attempt is None:
            continue
        if event.event == "cell-started":
            begun[Cell.parse(event.cell)] = event.attempt
        elif event.event == "cell-finished":
            finished[Cell.parse(event.cell)] = event.attempt
    begins = [event for event in events if event.event == "run-started"]
    return Earlier(
        finished=finished,
        half_done={cell: attempt for cell, attempt in begun.items() if attempt > finished.get(cell, 0)},
        controllers=_processes(begins),
        cells=_processes([event for event in events if event.event == "cell-started"]),
        attempts=max((_extra(event, "attempts", int) or 1 for event in begins), default=1),
        cold=any(_extra(event, "cold", bool) for event in begins),
    )


def to_do(layout: RunLayout, plan: Plan, earlier: Earlier, *, attempts: int) -> list[ToDo]:
    """What is left of a plan, in the order in which to start it.

    Cells without a result, those that the lab itself spoilt, those with attempts left.

    A cell that the lab spoilt (its process or its machine was killed, a disk was full) says nothing about the product;
    it gets one attempt more, however many it had.
    """
    found = []
    for planned in longest_host_first(plan.cells):
        if planned.excluded is not None or not planned.checks:
            continue
        attempt = _next_attempt(layout, planned, earlier, attempts)
        if attempt is not None:
            found.append(ToDo(planned, attempt))
    return found


def _next_attempt(layout: RunLayout, planned: PlannedCell, earlier: Earlier, attempts: int) -> int | None:
    cell = planned.cell
    if cell in earlier.half_done or cell not in earlier.finished:
        return earlier.half_done.get(cell, 1)
    last = earlier.finished[cell]
    attempt = store.read_attempt(layout.attempt(cell, last), layout.root.name)
    if is_spoilt(attempt, planned.checks):
        return last + 1
    bad = attempt.document is not None and attempt.document.outcome in _JUDGED_BADLY
    return last + 1 if bad and last < attempts else None


def is_spoilt(attempt: store.Attempt, checks: tuple[str, ...]) -> bool:
    """Whether an attempt ended through a fault of the lab, so that some of its checks were never judged."""
    complete = attempt.document is not None and {record.check for record in attempt.records}.issuperset(checks)
    return not complete or any(map(_is_spoilt, attempt.records))


def _is_spoilt(record: Record) -> bool:
    # A machine that ended by itself is `broken`, whoever ended it; what a hypervisor refuses is `failed`.
    lost = record.outcome is Outcome.BROKEN and record.blame is Blame.HYPERVISOR
    return lost or (record.outcome in (Outcome.BROKEN, Outcome.FAILED) and record.blame in _SPOILT_BY)


def clear_half_done(layout: RunLayout, earlier: Earlier) -> None:
    """Make sure that nothing of the earlier part still runs, and remove the attempts that it did not finish.

    An attempt that was cut off by the lab's own death says nothing about the product; it is done again
    under the same number, so that the records equal those of an undisturbed run. Raises `LabBusy` when
    the run's controller is alive.
    """
    alive = [pid for pid, started in earlier.controllers if process.is_alive(pid, started)]
    if alive:
        raise LabBusy(
            f"{layout.root.name} is still being run by process {alive[0]}",
            hint="wait for it, or end it with Ctrl-C where it runs",
        )
    for pid, started in earlier.cells:
        process.end_by_id(pid, started, patience_s=45.0)
    for attempt in layout.attempts():
        # Also one of which the journal knows nothing: the controller died before it could say that it began.
        if attempt.number > earlier.finished.get(attempt.cell, 0):
            _log.info("resume.again", cell=attempt.cell, attempt=attempt.number)
            shutil.rmtree(attempt.root)
        else:
            clear_drafts(attempt.root)
    clear_drafts(layout.root)


def clear_after_kill(attempt: AttemptLayout) -> None:
    """Remove what only the killed process of a cell would have removed: drafts, and seeds, which hold a private key."""
    clear_drafts(attempt.root)
    for seed in attempt.root.glob("seed-*"):
        seed.unlink(missing_ok=True)


def clear_drafts(folder: Path) -> None:
    """Remove the files and folders that a killed writer did not get as far as renaming into place."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        if not _DRAFT.fullmatch(entry.name):
            continue
        _log.info("resume.draft-removed", path=entry)
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)


def find(reports: Path, run: str) -> RunLayout:
    """The layout of a run given as an id or a path; `last` is the newest. Raises `RunError`."""
    from lab.results import layout as names

    if run == "last":
        known = names.run_directories(reports)
        if not known:
            raise RunError(f"there is no run below {reports / 'runs'}")
        return RunLayout(known[-1])
    direct = Path(run)
    path = direct if direct.is_dir() else names.run_directory(reports, run)
    if not path.is_dir():
        raise RunError(f"there is no run {run!r}", hint=f"ls {reports / 'runs'}")
    return RunLayout(path)


def _processes(events: list[JournalEvent]) -> tuple[tuple[int, int], ...]:
    pairs = ((_extra(event, "pid", int), _extra(event, "pid_started", int)) for event in events)
    return tuple((pid, started) for pid, started in pairs if pid is not None and started is not None)


def _extra(event: JournalEvent, key: str, kind: type[int]) -> int | None:
    """A number that an event holds beside its own keys; `None` when somebody wrote something else there."""
    value = (event.model_extra or {}).get(key)
    return value if isinstance(value, kind) else None
