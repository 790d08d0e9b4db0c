"""The local executor: one process per cell, as many at once as hosts and this machine take.

Cells fork from a server process that has everything imported already, so that a cell costs a fork and
not an interpreter start; a cell that crashes takes nothing with it.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from lab import log, process
from lab.contracts import Cell
from lab.errors import Blame, ExitCode, LabError
from lab.results.record import Outcome
from lab.runner import cell as cell_process
from lab.runner import cell_file, resume
from lab.runner.capacity import Capacity
from lab.runner.executors import _sockets, server
from lab.runner.work import CellResult, CellWork, Progress, Unwritten

_log = log.get(__name__)

UNDO_PATIENCE_S = 45.0
"""How long a cell that was asked to end may take to undo what it made."""

_CONTEXT = multiprocessing.get_context("forkserver")


@dataclass
class _Running:
    work: CellWork
    process: ForkServerProcess
    progress: Connection
    started: float  # time.monotonic()
    pid_started: int
    limit_s: float
    deadline: float
    overdue: bool = False
    unwritten: Unwritten | None = None


@dataclass
class Listener:
    """Whom the executor tells: the journal and the display."""

    started: Callable[[CellWork, int, int], None]  # with the process's id and start time
    progress: Callable[[Progress], None]
    finished: Callable[[CellResult], None]


@dataclass
class LocalExecutor:
    """Runs cells here; `run` returns when each has a result, `stop` makes it return early."""

    capacity: Capacity
    suites: Path
    listener: Listener
    limit_s: Callable[[CellWork], float]
    _running: dict[Cell, _Running] = field(default_factory=dict)

    def run(self, works: Iterable[CellWork]) -> Iterator[CellResult]:
        """Yield results as cells end, in the order in which they end."""
        _sockets.prepare()
        server.make_ready(_CONTEXT, self.suites, (host.driver for host in self.capacity.inventory.hosts.values()))
        waiting_by_host: dict[str, deque[CellWork]] = {}
        for work in works:
            waiting_by_host.setdefault(work.cell.host, deque()).append(work)
        while waiting_by_host or self._running:
            self._start_what_fits(waiting_by_host)
            yield from self._wait(1.0)

    def retry(self, work: CellWork) -> Iterator[CellResult]:
        """Run one more attempt of a cell to its end."""
        yield from self.run([work])

    def stop(self) -> None:
        """Ask every running cell to undo what it made and end; end by force those that do not."""
        for running in self._running.values():
            running.process.terminate()
        deadline = time.monotonic() + UNDO_PATIENCE_S
        for running in self._running.values():
            running.process.join(max(0.0, deadline - time.monotonic()))
            if running.process.is_alive():
                _log.warning("cell.killed", cell=running.work.cell, pid=running.process.pid)
                running.process.kill()
                running.process.join(5.0)
            running.progress.close()
        self._running.clear()

    def _start_what_fits(self, waiting_by_host: dict[str, deque[CellWork]]) -> None:
        for host, works in list(waiting_by_host.items()):
            while works and self.capacity.fits(works[0].cell, works[0].machines):
                self._start(works.popleft())
            if not works:
                del waiting_by_host[host]

    def _start(self, work: CellWork) -> None:
        receiver, sender = _CONTEXT.Pipe(duplex=False)
        started = _CONTEXT.Process(
            target=cell_process.run_in_process,
            args=(work, self.suites, sender),
            name=f"lab cell {work.cell}",
        )
        started.start()
        sender.close()
        self.capacity.add(work.cell, work.machines)
        now = time.monotonic()
        limit_s = self.limit_s(work)
        pid = started.pid or 0
        pid_started = process.start_time(pid) or 0
        self._running[work.cell] = _Running(work, started, receiver, now, pid_started, limit_s, now + limit_s)
        self.listener.started(work, pid, pid_started)

    def _wait(self, timeout_s: float) -> Iterator[CellResult]:
        """Pass progress on; yield the cells that ended meanwhile."""
        by_handle: dict[object, _Running] = {}
        for running in self._running.values():
            by_handle[running.progress] = running
            by_handle[running.process.sentinel] = running
        ready = wait(list(by_handle), timeout_s)  # type: ignore[arg-type]  # connections and sentinels
        for handle in ready:
            running = by_handle[handle]
            if handle is running.progress:
                self._pass_on(running)
        now = time.monotonic()
        for running in list(self._running.values()):
            # Not by `is_alive`, which asks the system once more, for every cell at every message of one.
            if running.process.sentinel in ready:
                yield self._end(running)
            elif now > running.deadline:
                self._hurry(running, now)

    def _pass_on(self, running: _Running) -> None:
        try:
            while running.progress.poll():
                message = running.progress.recv()
                if isinstance(message, Progress):
                    self.listener.progress(message)
                elif isinstance(message, Unwritten):
                    running.unwritten = message
        except (EOFError, OSError):
            # The process is about to end and its pipe is closed; without this, wait() would spin on it.
            running.process.join(UNDO_PATIENCE_S)

    def _hurry(self, running: _Running, now: float) -> None:
        if running.overdue:
            running.process.kill()
            running.process.join(5.0)
            return
        running.overdue = True
        running.deadline = now + UNDO_PATIENCE_S
        running.process.terminate()

    def _end(self, running: _Running) -> CellResult:
        running.process.join()
        # When the server that forked it was killed, its processes live on and nobody says so.
        process.end_by_id(running.process.pid or 0, running.pid_started, patience_s=UNDO_PATIENCE_S)
        self._pass_on(running)
        running.progress.close()
        work = running.work
        del self._running[work.cell]
        self.capacity.remove(work.cell)
        seconds = time.monotonic() - running.started
        result = cell_file.result(work, seconds)
        if result is None:
            resume.clear_after_kill(work.layout)
            result = replace(self._of_killed(running, seconds), undone=False)
        self.listener.finished(result)
        return result

    def _of_killed(self, running: _Running, seconds: float) -> CellResult:
        work, reason = running.work, _how_it_ended(running)
        try:
            return cell_file.of_killed(work, self.suites, reason, seconds)
        except LabError as fault:
            # Then the run as a whole ends soon, with the journal's own error.
            _log.info("cell.unwritten", cell=work.cell, reason=fault)
            return CellResult(work.cell, work.attempt, Outcome.BROKEN, Blame.LAB, reason, seconds)


def _how_it_ended(running: _Running) -> str:
    status = running.process.exitcode
    if running.unwritten is not None:
        return f"the cell could not write its result: {running.unwritten.reason}"
    if running.overdue:
        return f"the cell did not end within its limit of {running.limit_s:.0f} s and was stopped"
    if status is not None and status < 0:
        return f"the cell's process was killed from outside ({signal.Signals(-status).name})"
    if status == ExitCode.INTERRUPTED:
        return "the cell's process was asked to end from outside (SIGTERM)"
    return f"the cell's process ended with status {status} before it wrote its result; see its cell.log"
