"""A run: executes a plan, keeps its journal, and leaves a directory that says what happened."""

from __future__ import annotations

import os
import platform
import signal
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from rich.console import Console

from lab import log, process
from lab.catalogue import Catalogue
from lab.contracts import Cell, Owner
from lab.errors import ExitCode, LabDiskFull, LabError, NothingToRun
from lab.inventory import models as inventory_models
from lab.inventory.models import Inventory
from lab.results import allure, junit, layout, store
from lab.results.documents import JournalEvent, KnownIssue, RunDocument
from lab.results.layout import RunLayout
from lab.results.record import Outcome, is_of_driver
from lab.runner import capacity, exit_code, hold, plan, reap, resume
from lab.runner.display import Display, for_console
from lab.runner.executors.local import Listener, LocalExecutor
from lab.runner.plan import Plan, PlannedCell
from lab.runner.work import CellResult, CellWork, Progress

_log = log.get(__name__)

CHECK_LIMIT_S = 180.0
"""The longest that one check may take on average, for the limit of a whole cell."""

BRING_UPS = 3
"""How often a cell may bring a machine up (restored, cold, cold again after a bad copy)."""


@dataclass(frozen=True)
class Wish:
    """What was asked for on the command line."""

    inventory: str  # as it was written
    reports: Path
    command: str
    attempts: int = 1  # of a cell that fails or breaks
    use_warm: bool = True


@dataclass
class Run:
    """One run, new or resumed."""

    layout: RunLayout
    inventory: Inventory
    catalogue: Catalogue
    plan: Plan
    wish: Wish
    display: Display
    earlier: resume.Earlier | None = None
    _results: dict[Cell, CellResult] = field(default_factory=dict)

    def execute(self) -> ExitCode:
        """Run everything that has no result yet; undo everything when interrupted. Raises `LabDiskFull`, `RunError`."""
        with hold.as_controller(self.layout), _resumable(self.layout.root.name):
            if self.earlier is not None:
                resume.clear_half_done(self.layout, self.earlier)
                self._reap_all()
            return self._execute()

    def _execute(self) -> ExitCode:
        journal = store.Journal(self.layout.journal)
        own = {"pid": os.getpid(), "pid_started": process.start_time(os.getpid())}
        journal.append(_event("run-started", **own, attempts=self.wish.attempts, cold=not self.wish.use_warm))
        executor = LocalExecutor(
            capacity=capacity.of_this_machine(self.inventory),
            suites=self.inventory.suites,
            listener=self._listener(journal),
            limit_s=self._limit_s,
        )
        # Who asks the controller to end (a CI server, a service manager) means what Ctrl-C means.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            with self.display:
                self._execute_all(executor)
        except KeyboardInterrupt:
            self._undo(executor)
            journal.append(_event("interrupted"))
            return self._close(store.Run.open(self.layout.root), ExitCode.INTERRUPTED)
        except LabError:
            self._undo(executor)
            raise
        done = store.Run.open(self.layout.root)
        code = exit_code.of(done, self.plan)
        journal.append(_event("run-finished", exit_code=int(code)))
        return self._close(done, code)

    # -- cells ---------------------------------------------------------------------------------------------

    def _execute_all(self, executor: LocalExecutor) -> None:
        first = [self._work(each.planned, each.attempt) for each in self._to_do()]
        again = self._again(executor.run(first))
        while again:
            again = self._again(executor.run(again))

    def _to_do(self) -> list[resume.ToDo]:
        earlier = self.earlier or resume.NOTHING
        return resume.to_do(self.layout, self.plan, earlier, attempts=self.wish.attempts)

    def _again(self, results: Iterable[CellResult]) -> list[CellWork]:
        """Take results as they come; return the attempts that follow from them."""
        planned = {planned.cell: planned for planned in self.plan.cells}
        again = []
        for result in results:
            self._results[result.cell] = result
            bad = result.outcome in (None, Outcome.FAILED, Outcome.BROKEN, Outcome.BLOCKED)
            if bad and result.attempt < self.wish.attempts:
                again.append(self._work(planned[result.cell], result.attempt + 1))
        return again

    def _work(self, planned: PlannedCell, attempt: int) -> CellWork:
        cell = planned.cell
        return CellWork(
            run=self.layout.root.name,
            cell=cell,
            checks=planned.checks,
            inventory=self.inventory.only(cell),
            layout=self.layout.attempt(cell, attempt),
            owner=Owner(self.layout.root.name, cell.name, os.getpid(), process.start_time(os.getpid()) or 0),
            realness=planned.realness,
            use_warm=self.wish.use_warm,
            command=_command(self.wish.inventory, planned),
            known_issues=tuple(_as_documented(issue) for issue in self.inventory.matrix.known_issues_of(cell)),
            machines=planned.machines,
        )

    def _limit_s(self, work: CellWork) -> float:
        limit_s = self.inventory.hosts[work.cell.host].boot_limit_s(self.inventory.guests[work.cell.guest])
        return BRING_UPS * (limit_s + 120.0) + 1800.0 + CHECK_LIMIT_S * len(work.checks)

    # -- what happens meanwhile ----------------------------------------------------------------------------

    def _listener(self, journal: store.Journal) -> Listener:
        def started(work: CellWork, pid: int, pid_started: int) -> None:
            journal.append(
                _event("cell-started", cell=work.cell.name, attempt=work.attempt, pid=pid, pid_started=pid_started)
            )
            self.display.started(work)

        def progress(step: Progress) -> None:
            if step.done == 0:
                journal.append(_event("cell-phase", cell=step.cell.name, phase=step.phase))
            self.display.progress(step)

        def finished(result: CellResult) -> None:
            if not result.undone:
                picks = reap.of_cell(self.layout.root.name, result.cell.name)
                self._tell(reap.reap_host(self.inventory.hosts[result.cell.host], picks=picks))
            journal.append(
                _event(
                    "cell-finished",
                    cell=result.cell.name,
                    attempt=result.attempt,
                    outcome=result.outcome,
                    blame=result.blame,
                    reason=result.reason,
                    seconds=round(result.seconds, 3),
                )
            )
            self.display.finished(result)

        return Listener(started, progress, finished)

    def _undo(self, executor: LocalExecutor) -> None:
        self.display.say("Undoing what was made; this takes a few seconds.")
        executor.stop()
        self._reap_all()

    def _reap_all(self) -> None:
        for reaped in reap.reap(self.inventory, picks=reap.of_run(self.layout.root.name)):
            self._tell(reaped)

    def _tell(self, reaped: reap.Reaped) -> None:
        if reaped.problem:
            self.display.say(f"{reaped.host}: {reaped.problem}")

    def _close(self, run: store.Run, code: ExitCode) -> ExitCode:
        """Write the documents that are made when nothing happens any more."""
        counts = Counter(record.outcome for record in run.records())
        document = run.document.model_copy(
            update={"finished": datetime.now(UTC), "exit_code": int(code), "outcomes": dict(counts)}
        )
        store.write_document(self.layout.run_json, document)
        run = run.concluded(document)
        junit.write(run)
        allure.write(run)
        return code


def new(inventory: Inventory, catalogue: Catalogue, wanted: Plan, wish: Wish, console: Console) -> Run:
    """Make the directory of a new run. Raises `NothingToRun`, `LabDiskFull`."""
    if not any(planned.excluded is None and planned.checks for planned in wanted.cells):
        raise NothingToRun(_nothing(wanted.cells), hint="lab plan INVENTORY shows every cell with its reason")
    run = layout.new_run_id(datetime.now(UTC))
    files = RunLayout(layout.run_directory(wish.reports, run))
    document = RunDocument(
        run=run,
        started=datetime.now(UTC),
        inventory=wish.inventory,
        command=wish.command,
        version=metadata.version("interop-lab"),
        machine=_this_machine(),
    )
    with layout.appearing(files.root) as draft:
        store.write_json(draft.plan_json, plan.as_json(wanted))
        store.write_document(draft.run_json, document)
    return Run(files, inventory, catalogue, wanted, wish, _display(console, _count(wanted), wanted))


def resumed(inventory: Inventory, catalogue: Catalogue, files: RunLayout, wish: Wish, console: Console) -> Run:
    """Take up a run that was killed or interrupted; nothing is changed before it is executed. Raises `RunError`."""
    earlier = resume.read(files)
    wanted = plan.from_json(files.plan_json)
    wish = replace(wish, attempts=max(wish.attempts, earlier.attempts), use_warm=wish.use_warm and not earlier.cold)
    left = resume.to_do(files, wanted, earlier, attempts=wish.attempts)
    return Run(files, inventory, catalogue, wanted, wish, _display(console, len(left), wanted), earlier)


def _count(wanted: Plan) -> int:
    return sum(planned.excluded is None and bool(planned.checks) for planned in wanted.cells)


def _command(inventory: str, planned: PlannedCell) -> str:
    """The command line that runs this cell alone."""
    cell = planned.cell
    if is_of_driver(planned.checks[0]):
        return f"lab qualify {inventory} {cell.host} --guest {cell.guest} --profile {cell.profile}"
    return f"lab cell {inventory} {cell}"


def _display(console: Console, cells: int, wanted: Plan) -> Display:
    return for_console(console, total=cells, estimate_s=wanted.estimate_s)


@contextmanager
def _resumable(run: str) -> Iterator[None]:
    """Say of a full disk how the run goes on when there is space again."""
    try:
        yield
    except LabDiskFull as reason:
        raise LabDiskFull(
            f"{reason.what}; the records written so far are whole",
            hint=f"free some space, then go on with: lab run INVENTORY --resume {run}",
        ) from reason


def _as_documented(issue: inventory_models.KnownIssue) -> KnownIssue:
    return KnownIssue(
        cell=issue.cells,
        feature=issue.feature,
        check=issue.check,
        reason=issue.reason,
        owner=issue.owner,
        expires=issue.expires,
    )


def _nothing(cells: Sequence[PlannedCell]) -> str:
    if not cells:
        return "the plan has no cell"
    excluded = sum(planned.excluded is not None for planned in cells)
    return f"none of the {len(cells)} cells of the plan can run: {excluded} excluded, the rest have no check to run"


def _this_machine() -> dict[str, object]:
    import psutil

    return {
        "system": f"{platform.system()} {platform.release()}",
        "arch": platform.machine(),
        "processors": len(os.sched_getaffinity(0)),
        "memory_mib": psutil.virtual_memory().total >> 20,
        "python": platform.python_version(),
    }


def _event(event: str, **facts: object) -> JournalEvent:
    return JournalEvent.model_validate({"time": datetime.now(UTC), "event": event, **facts})
