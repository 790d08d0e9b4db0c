"""Resume: what an earlier, killed part of a run has finished, and what it left half done."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from lab import log, process
from lab.contracts import Cell
from lab.errors import LabBusy, RunError
from lab.results import store
from lab.results.layout import RunLayout

_log = log.get(__name__)


@dataclass(frozen=True)
class Earlier:
    """What the journal of a run knows."""

    finished: dict[Cell, int]  # the last finished attempt of each cell that ended
    half_done: dict[Cell, int]  # the attempt that each other begun cell was in
    controllers: tuple[tuple[int, int], ...]  # id and start time
    cells: tuple[tuple[int, int], ...]  # likewise, of the cells' processes


def read(layout: RunLayout) -> Earlier:
    """Read the journal. Raises `RunError` when there is none."""
    if not layout.journal.is_file():
        raise RunError(f"{layout.root} has no journal to resume from", hint="start a new run: lab run INVENTORY")
    events, problems = store.read_journal(layout.journal)
    for problem in problems:
        _log.warning("journal.problem", problem=problem)
    finished: dict[Cell, int] = {}
    begun: dict[Cell, int] = {}
    controllers: list[tuple[int, int]] = []
    cells: list[tuple[int, int]] = []
    for event in events:
        extra = event.model_extra or {}
        if isinstance(extra.get("pid"), int) and isinstance(extra.get("pid_started"), int):
            into = controllers if event.event == "run-started" else cells
            into.append((extra["pid"], extra["pid_started"]))
        if event.cell is None or event.attempt is None:
            continue
        if event.event == "cell-started":
            begun[Cell.parse(event.cell)] = event.attempt
        elif event.event == "cell-finished":
            finished[Cell.parse(event.cell)] = event.attempt
    half_done = {cell: attempt for cell, attempt in begun.items() if attempt > finished.get(cell, 0)}
    return Earlier(finished, half_done, tuple(controllers), tuple(cells))


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
    for cell, attempt in earlier.half_done.items():
        root = layout.attempt(cell, attempt).root
        if root.exists():
            _log.info("resume.again", cell=cell, attempt=attempt)
            shutil.rmtree(root)


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
