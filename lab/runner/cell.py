"""One attempt at one cell, in its own process: bring up, check, collect, tear down, say how it went.

`cell.json` is the result; a process that ends without having written it was killed, or could not write.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType

from lab import log, process, pytest_plugin, waiting
from lab.contracts import Realness
from lab.errors import ExitCode, GuestError, LabError
from lab.provisioning.bring_up import CellSession, open_session
from lab.results.record import Outcome
from lab.runner import cell_file, hold
from lab.runner.work import CellWork, Progress, Unwritten

_log = log.get(__name__)

ORPHAN_CHECK_S = 1.0


class _Interruption:
    """Turns SIGTERM into a KeyboardInterrupt, once, so that every `finally` runs undisturbed after it."""

    def __init__(self) -> None:
        self.asked = False

    def install(self) -> None:
        # Ctrl-C reaches the whole process group; only the controller decides what it means.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if not self.asked:
            self.asked = True
            raise KeyboardInterrupt


def run_in_process(work: CellWork, suites: Path, progress: Connection) -> None:
    """The target of the cell's process; its exit status is 0, or 130 when it was interrupted."""
    interruption = _Interruption()
    interruption.install()
    _end_with(work.owner.pid, work.owner.pid_started)
    sys.stdin = Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115 - for the rest of the process
    status = ExitCode.INTERRUPTED
    try:
        with hold.as_cell(work.layout.cells) as is_ours:
            if is_ours and process.is_alive(work.owner.pid, work.owner.pid_started):
                run(work, suites, _sender(progress), interrupted=lambda: interruption.asked)
                status = ExitCode.INTERRUPTED if interruption.asked else ExitCode.AS_EXPECTED
    except KeyboardInterrupt:
        _log.info("cell.interrupted", cell=work.cell)
    except LabError as reason:
        # It could not even be written down: the controller does that, and this tells it why.
        _tell(progress, Unwritten(work.cell, reason.blame, str(reason)))
        status = ExitCode.LAB_AT_FAULT
    progress.close()
    # Threads of libraries must not keep a finished cell alive.
    os._exit(status)


def run(
    work: CellWork,
    suites: Path,
    progress: Callable[[Progress], None],
    *,
    interrupted: Callable[[], bool] = lambda: False,
) -> None:
    """Run the cell and write everything into its directory. Raises `LabDiskFull`, `RunError` where it cannot."""
    try:
        work.layout.root.mkdir(parents=True, exist_ok=True)
        handler = log.write_to(work.layout.cell_log)
    except OSError as reason:
        raise process.disk_full_or(reason, f"making {work.layout.root}") from reason
    start = time.monotonic()
    note = _Note(work.realness)
    try:
        with open_session(
            work.inventory,
            work.cell,
            owner=work.owner,
            directory=work.layout.root,
            progress=lambda phase: progress(Progress(work.cell, phase, 0, len(work.checks))),
        ) as session:
            session.use_warm = work.use_warm
            note.session = session
            note.realness = max(work.realness, session.realness, key=tuple(Realness).index)
            _run_checks(session, work, suites, _check_progress(work, progress))
        if not interrupted():
            cell_file.write(work, note.circumstances(time.monotonic() - start))
    except LabError as reason:
        _log.error("cell.fault", cell=work.cell, reason=reason)
        outcome = Outcome.FAILED if isinstance(reason, GuestError) else Outcome.BROKEN
        fault = cell_file.Fault(outcome, reason.blame, str(reason))
        cell_file.write_missing(work, suites, fault, note.realness)
        cell_file.write(work, note.circumstances(time.monotonic() - start), fault=fault)
    finally:
        log.stop_writing(handler)


def _run_checks(session: CellSession, work: CellWork, suites: Path, progress: Callable[[str], None]) -> None:
    if work.qualifies:
        from lab.testing import qualification

        qualification.run_checks(session, work.checks, run=work.run, attempt=work.attempt, progress=progress)
        return
    pytest_plugin.run_checks(session, work.checks, run=work.run, attempt=work.attempt, suites=suites, progress=progress)


class _Note:
    """What is known of the cell when it ends."""

    def __init__(self, realness: Realness) -> None:
        self.session: CellSession | None = None
        self.realness = realness

    def circumstances(self, seconds: float) -> cell_file.Circumstances:
        session = self.session
        if session is None:
            return cell_file.Circumstances(self.realness, seconds)
        known = {
            "warm": session.warm_history,
            **session.facts(),
            "phases": {name: round(value, 3) for name, value in session.phases.items()},
            "insecure": list(session.host.insecure),
        }
        return cell_file.Circumstances(self.realness, seconds, known)


def _sender(connection: Connection) -> Callable[[Progress], None]:
    return lambda progress: _tell(connection, progress)


def _tell(connection: Connection, message: Progress | Unwritten) -> None:
    try:
        connection.send(message)
    except OSError as reason:
        # The controller is gone; `_end_with` ends this process in a moment, with everything undone.
        _log.warning("progress.lost", reason=reason)


def _check_progress(work: CellWork, progress: Callable[[Progress], None]) -> Callable[[str], None]:
    done = 0

    def step(check: str) -> None:
        nonlocal done
        done += 1
        progress(Progress(work.cell, check, done, len(work.checks)))

    return step


def _end_with(pid: int, started: int) -> None:
    """End this process in good order when its controller is gone."""

    def watch() -> None:
        while process.is_alive(pid, started):
            waiting.pause(ORPHAN_CHECK_S)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="orphan-watch").start()
