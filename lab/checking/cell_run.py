"""The checks of one cell while pytest runs them: who may run, what became of each, and when the cell must stop."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Generator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from lab import log
from lab.catalogue import Catalogue, Check
from lab.checking import outcomes, silence
from lab.checking.handed import Evidence, Measurements
from lab.checking.limits import at_most
from lab.checking.outcomes import PASSED, Blocked, CheckTimedOut, Judgement, NotApplicable, readable
from lab.contracts import CAPABILITY_PROTOCOLS, Cell, Hypervisor, Machine, Realness
from lab.errors import GuestRebooted, LabError, NotSupported
from lab.results.record import Outcome, Record, worst
from lab.results.store import RecordFile

if TYPE_CHECKING:
    from lab.guests.guest import Guest

_log = log.get(__name__)

CHECK_ID = pytest.StashKey[str]()
"""The id of an item's check: set before where it is not named after its file, else noted when it was found out."""

_SHOWN_AS_SKIPPED = {Outcome.NOT_APPLICABLE, Outcome.SKIPPED, Outcome.UNSUPPORTED, Outcome.BLOCKED}


class _Named(Protocol):
    @property
    def driver(self) -> str: ...


class _Entry(Protocol):
    @property
    def family(self) -> Any: ...

    @property
    def channel(self) -> Any: ...


class Session(Protocol):
    """What the checks need of a `lab.provisioning.bring_up.CellSession`."""

    @property
    def cell(self) -> Cell: ...

    @property
    def host(self) -> _Named: ...

    @property
    def entry(self) -> _Entry: ...

    @property
    def hypervisor(self) -> Hypervisor: ...

    @property
    def directory(self) -> Path: ...

    @property
    def is_warm(self) -> bool: ...

    @property
    def emulates_virtualisation(self) -> bool: ...

    @property
    def realness(self) -> Realness: ...

    @property
    def machines(self) -> Sequence[Machine]: ...

    def guest(self, *, cold: bool) -> Guest: ...

    def peer(self) -> Guest: ...

    def put_away(self) -> None: ...


@dataclass(frozen=True)
class Where:
    """Where the records of one attempt belong."""

    run: str
    attempt: int
    suites: Path  # resolved
    directory: Path  # of the attempt

    @property
    def records(self) -> Path:
        return self.directory / "records.jsonl"

    @property
    def run_directory(self) -> Path:
        """What the paths of evidence are relative to: `RUN/cells/HOST/GUEST/PROFILE/attempt-N` lies below it."""
        above = self.directory.parents
        return above[4] if len(above) > 4 and above[3].name == "cells" else self.directory


@dataclass
class _Current:
    """The check that runs now."""

    check: Check
    evidence: Evidence
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    clock: float = field(default_factory=time.monotonic)
    measured: Measurements = field(default_factory=Measurements)
    judgement: Judgement = PASSED
    seconds: float | None = None  # of the check itself, without bringing the guest up
    guest: Guest | None = None
    peer: Guest | None = None
    bring_up: BaseException | None = None


class CellRun:
    """A pytest plugin that exists only while a cell's checks run. Not for use twice."""

    def __init__(
        self,
        session: Session,
        catalogue: Catalogue,
        where: Where,
        *,
        wanted: Collection[str] | None,
        progress: Callable[[str], None],
    ) -> None:
        self.session = session
        self._catalogue = catalogue
        self._where = where
        self._wanted = wanted
        self._progress = progress
        self._file = RecordFile(where.records)
        self._realness = session.realness
        self._current: _Current | None = None
        self._stopped: Blocked | None = None
        self._known: Guest | None = None  # the guest of the check before
        self._collection_errors: dict[str, str] = {}
        self._done: dict[str, Outcome] = {}
        # What an exception means.
        self.judge = outcomes.judge_on_emulated_virtualisation if session.emulates_virtualisation else outcomes.judge
        self.interrupted = False
        self.fault: LabError | None = None  # of ours, while a record was written

    # -- what the fixtures ask -----------------------------------------------------------------------------

    @property
    def current(self) -> _Current:
        if self._current is None:
            raise RuntimeError("no check runs now")
        return self._current

    def guest(self) -> Guest:
        """The guest for the current check, with everything that the check needs; else its exception."""
        current = self.current
        if current.guest is not None:
            return current.guest
        guest = current.guest = self._brought_up(lambda: self.session.guest(cold=current.check.cold))
        if guest is not self._known:
            # From now on a boot that no check asked for is noticed.
            guest.assert_same_boot()
            self._known = guest
        self._require(current.check, guest.machine)
        return guest

    def peer(self) -> Guest:
        """The second guest for the current check. Raises `ValueError` when the check did not say that it has one."""
        current = self.current
        if current.check.machines < 2:
            raise ValueError("a check that asks for the peer says machines=2, so that memory is kept for it")
        if current.peer is None:
            current.peer = self._brought_up(self.session.peer)
            current.peer.assert_same_boot()
        return current.peer

    def _brought_up(self, bring_up: Callable[[], Guest]) -> Guest:
        current = self.current
        try:
            return bring_up()
        except LabError as reason:
            # A guest that was up already may be lost while the first is asked of it.
            current.bring_up = silence.explained(reason, self.session.machines)
            if current.bring_up is reason:
                raise
            raise current.bring_up from reason
        except Exception as reason:
            # A bug of ours in bring-up must not look like one of the check that came first.
            current.bring_up = LabError(f"bringing the guest up failed: {type(reason).__name__}: {reason}")
            raise current.bring_up from reason

    def _require(self, check: Check, machine: Machine) -> None:
        for capability in sorted(check.needs):
            protocol = CAPABILITY_PROTOCOLS[capability]
            if not isinstance(machine, protocol) and not isinstance(self.session.hypervisor, protocol):
                raise NotApplicable(f"driver {self.session.host.driver} has no {capability}")

    # -- pytest's hooks ------------------------------------------------------------------------------------

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._collection_errors[report.nodeid] = readable(report.longreprtext)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        ids = {item: self._id_of(item) for item in items}
        left = [item for item in items if self._wanted is not None and ids[item] not in self._wanted]
        items[:] = [item for item in items if item not in set(left)]
        config.hook.pytest_deselected(items=left)
        unknown = sorted(ids[item] for item in items if ids[item] not in self._catalogue.checks_by_id)
        if unknown:
            raise pytest.UsageError(f"not a check of {self._where.suites}: {', '.join(unknown[:5])}")
        checks = {item: self._catalogue.checks_by_id[ids[item]] for item in items}
        # Warm ones first: they share one restored machine, and a cold one may reboot it. Last what spoils it.
        # Else as the catalogue lists the features, so that a guest that does not come up is a failure of `boot.core`.
        place = {feature: number for number, feature in enumerate(self._catalogue.by_id)}
        items.sort(key=lambda item: (checks[item].spoils, checks[item].cold, place[checks[item].feature]))
        if config.pluginmanager.hasplugin("timeout"):
            # The limits are ours, because what runs out of time is judged; 0 is none for pytest-timeout.
            for item in items:
                item.add_marker(pytest.mark.timeout(0))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        check = self._catalogue.checks_by_id[self._id_of(item)]
        self._current = _Current(check, Evidence(self._folder(check)))
        try:
            answer = yield
        finally:
            current, self._current = self._current, None
        self._finish(current)
        if self.fault is not None or self.interrupted:
            item.session.shouldstop = str(self.fault or "interrupted")
        return answer

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if self._stopped is not None:
            raise self._stopped
        check = self.current.check
        session = self.session
        reason = self._catalogue.not_applicable(check, family=session.entry.family, driver=session.host.driver)
        if reason is not None:
            raise NotApplicable(reason)
        limits = session.hypervisor.limits() if check.needs else {}
        for capability in sorted(check.needs & limits.keys()):
            raise NotSupported(limits[capability])

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        current = self.current
        start = time.monotonic()
        try:
            with at_most(current.check.timeout_s, current.check.id):
                answer = yield
        finally:
            current.seconds = time.monotonic() - start
        for guest in (current.guest, current.peer):
            if guest is not None:
                guest.assert_same_boot()
        return answer

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if call.excinfo is not None:
            self._note(call.when, call.excinfo.value, report)
        return report

    def pytest_keyboard_interrupt(self) -> None:
        self.interrupted = True

    # -- judging -------------------------------------------------------------------------------------------

    def _note(self, phase: str, error: BaseException, report: pytest.TestReport) -> None:
        current = self.current
        brought_up = error is not current.bring_up
        error = silence.explained(error, self.session.machines) if brought_up else error
        judgement = self.judge(error, in_check=brought_up and phase != "setup")
        if judgement.outcome.badness > current.judgement.outcome.badness or current.judgement is PASSED:
            current.judgement = judgement
        if judgement.outcome in _SHOWN_AS_SKIPPED:
            report.outcome = "skipped"
            report.longrepr = (str(self._where.suites), 0, f"{judgement.outcome}: {judgement.reason}")
        elif brought_up and self._stopped is None:
            current.evidence.attach("failure.txt", report.longreprtext)
        if judgement.stops_cell and self._stopped is None:
            self._stopped = Blocked(f"the cell was stopped by: {judgement.reason}", blame=judgement.blame)
        elif isinstance(error, GuestRebooted | CheckTimedOut):
            # What the next check gets must be whole: a machine of its own.
            self._put_away()

    def _put_away(self) -> None:
        try:
            self.session.put_away()
        except LabError as reason:
            self._stopped = Blocked(f"the cell was stopped by: {reason}", blame=reason.blame)

    def _finish(self, current: _Current | None) -> None:
        if current is None or self.interrupted:
            return
        seconds = current.seconds if current.seconds is not None else time.monotonic() - current.clock
        warm = current.guest is not None and self.session.is_warm
        self._write(current.check, current.judgement, current, seconds=seconds, warm=warm)
        touched = current.seconds is not None and current.judgement.outcome is not Outcome.NOT_APPLICABLE
        if current.check.spoils and touched and self._stopped is None:
            self._put_away()
        self._progress(current.check.id)

    def _write(
        self, check: Check, judgement: Judgement, current: _Current | None, *, seconds: float = 0.0, warm: bool = False
    ) -> None:
        record = Record(
            run=self._where.run,
            cell=self.session.cell.name,
            feature=check.feature,
            check=check.id,
            attempt=self._where.attempt,
            outcome=judgement.outcome,
            blame=judgement.blame,
            reason=judgement.reason,
            realness=self._realness,
            warm=warm,
            started=current.started if current else datetime.now(UTC),
            seconds=round(seconds, 4),
            measured=dict(current.measured.taken()) if current else {},
            evidence=tuple(self._relative(path) for path in current.evidence.files()) if current else (),
        )
        try:
            self._file.append(record)
            self._done[check.id] = judgement.outcome
        except LabError as reason:
            self.fault = reason

    def conclude(self, status: int) -> None:
        """After pytest has ended with that status: raise what went wrong, and let no wanted check be without a record.

        Raises `LabDiskFull` and `RunError` when a record cannot be written, and `KeyboardInterrupt` when interrupted.
        """
        if self.fault is not None:
            raise self.fault
        if self.interrupted:
            raise KeyboardInterrupt
        self.write_missing(f"pytest ended with status {status}")
        if self.fault is not None:
            raise self.fault

    def write_missing(self, usual: str) -> None:
        """A record for every wanted check that pytest did not run: its file cannot be imported, or it is not there."""
        for name in sorted(set(self._wanted or ()) - self._done.keys()):
            check = self._catalogue.checks_by_id[name]
            why = next((text for node, text in self._collection_errors.items() if _same_file(node, name)), usual)
            error: BaseException = self._stopped or RuntimeError(f"pytest did not run it: {why}")
            self._write(check, self.judge(error, in_check=True), None)

    # -- names ---------------------------------------------------------------------------------------------

    def _id_of(self, item: pytest.Item) -> str:
        if CHECK_ID in item.stash:
            return item.stash[CHECK_ID]
        try:
            file = item.path.resolve().relative_to(self._where.suites)
        except ValueError:
            found = item.nodeid
        else:
            found = f"{file.as_posix()}::{item.nodeid.partition('::')[2]}"
        item.stash[CHECK_ID] = found
        return found

    def _folder(self, check: Check) -> Path:
        stem = check.id.removesuffix(".py").replace("/test_", "/").replace(".py::test_", "/")
        return self.session.directory / "evidence" / stem.replace("::", "/")

    def _relative(self, path: Path) -> str:
        return path.relative_to(self._where.run_directory).as_posix()

    @property
    def worst(self) -> Outcome | None:
        return worst(self._done.values())

    @property
    def done(self) -> list[str]:
        """The ids of the checks that have a record."""
        return list(self._done)

    @property
    def counts(self) -> dict[Outcome, int]:
        return dict(Counter(self._done.values()))


def _same_file(node: str, check: str) -> bool:
    return bool(node) and check.partition("::")[0].endswith(node.partition("::")[0])
