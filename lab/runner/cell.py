"""One attempt at one cell, in its own process: bring up, check, collect, tear down, say how it went.

`cell.json` is the result; a process that ends without having written it was killed.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType

from lab import log, process, pytest_plugin, waiting
from lab.contracts import Realness
from lab.errors import Blame, ExitCode, GuestError, LabError
from lab.provisioning.bring_up import CellSession, open_session
from lab.results import store
from lab.results.documents import CellDocument
from lab.results.record import Outcome, Record
from lab.runner.work import CellWork, Progress

_log = log.get(__name__)

ORPHAN_CHECK_S = 1.0
REASON_LIMIT = 2000


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
        run(work, suites, _sender(progress), interrupted=lambda: interruption.asked)
        status = ExitCode.INTERRUPTED if interruption.asked else ExitCode.AS_EXPECTED
    except KeyboardInterrupt:
        _log.info("cell.interrupted", cell=work.cell)
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
    """Run the cell and write everything into its directory. Raises `LabDiskFull` only."""
    work.layout.root.mkdir(parents=True, exist_ok=True)
    handler = log.write_to(work.layout.cell_log)
    start = time.monotonic()
    note = _Note(work, suites)
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
            pytest_plugin.run_checks(
                session,
                work.checks,
                run=work.run,
                attempt=work.attempt,
                suites=suites,
                progress=_check_progress(work, progress),
            )
        if not interrupted():
            note.write(time.monotonic() - start)
    except LabError as reason:
        _log.error("cell.fault", cell=work.cell, reason=reason)
        note.blocked(reason)
        note.write(time.monotonic() - start)
    finally:
        log.stop_writing(handler)


class _Note:
    """Builds `cell.json` from what is known when the cell ends."""

    def __init__(self, work: CellWork, suites: Path) -> None:
        self._work = work
        self._suites = suites
        self.session: CellSession | None = None
        self.realness = work.realness

    def blocked(self, reason: LabError) -> None:
        """A fault outside of any check: every check that has no record yet gets one that says why."""
        done = {record.check for record in store.read_attempt(self._work.layout, self._work.run).records}
        file = store.RecordFile(self._work.layout.records)
        decisive = Outcome.FAILED if isinstance(reason, GuestError) else Outcome.BROKEN
        for position, check in enumerate(check for check in self._work.checks if check not in done):
            first = position == 0 and not done
            file.append(
                Record(
                    run=self._work.run,
                    cell=self._work.cell.name,
                    feature=pytest_plugin.feature_of(check, self._suites),
                    check=check,
                    attempt=self._work.attempt,
                    outcome=(decisive if first else Outcome.BLOCKED),
                    blame=reason.blame,
                    reason=str(reason)[:REASON_LIMIT],
                    realness=self.realness,
                    warm=False,
                    started=datetime.now(UTC),
                    seconds=0.0,
                )
            )

    def write(self, seconds: float) -> None:
        """Write `cell.json` in one step: it is there whole, or the cell did not finish."""
        records = store.read_attempt(self._work.layout, self._work.run).records
        decisive = max(records, key=lambda record: record.outcome.badness, default=None)
        bad = decisive is not None and decisive.outcome.badness > Outcome.PASSED.badness
        session = self.session
        known = session.facts() if session else {}
        content = {
            "schema": 1,
            "run": self._work.run,
            "cell": self._work.cell.name,
            "attempt": self._work.attempt,
            "realness": self.realness,
            "warm": session.warm_history if session else [],
            **known,
            "phases": {name: round(value, 3) for name, value in session.phases.items()} if session else {},
            "seconds": round(seconds, 3),
            "outcome": decisive.outcome if decisive else None,
            "blame": decisive.blame if decisive else Blame.NOBODY,
            "reason": decisive.reason if decisive and bad else "",
            "command": self._work.command,
            "known_issues": list(self._work.known_issues),
            "insecure": list(session.host.insecure) if session else [],
        }
        store.write_document(self._work.layout.cell_json, CellDocument.model_validate(content))


def _sender(connection: Connection) -> Callable[[Progress], None]:
    def send(progress: Progress) -> None:
        try:
            connection.send(progress)
        except (BrokenPipeError, OSError) as reason:
            # The controller is gone; `_end_with` ends this process in a moment, with everything undone.
            _log.warning("progress.lost", reason=reason)

    return send


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
