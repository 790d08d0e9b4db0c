"""A qualification: the contract suite for drivers, run against a live host and recorded like checks of a guest.

`lab qualify` plans a run whose checks are the tests of the contract. Their ids begin with `driver/`, their features
are those of `lab.testing.contract`. Everything else is a run like any other.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from lab import log
from lab.catalogue.model import FAMILIES, HYPERVISORS, Catalogue, Check, Feature
from lab.contracts import Capability
from lab.errors import Blame, HostError, ImageError, LabBusy, LabDiskFull, LabError, MissingExtra, MissingTool
from lab.testing import contract

if TYPE_CHECKING:
    from lab.checking.outcomes import Judgement
    from lab.provisioning.bring_up import CellSession

AREA = "Driver"
LIMIT_S = 900.0
"""Of one test: under emulation some boot several times."""

_FILE = Path(__file__).with_name("qualified.py")
# These are faults of the machine that the lab runs on, and say nothing of a driver.
_LABS_OWN = (LabDiskFull, LabBusy, MissingTool, MissingExtra, ImageError, HostError)
_log = log.get(__name__)


@cache
def catalogue() -> Catalogue:
    """The tests of the contract as checks of features, for planning, judging and the site."""
    from lab.testing.hypervisor import HypervisorContract

    whats: tuple[Capability | str, ...] = (*contract.REQUIRED, *Capability)
    features = tuple(
        Feature(contract.feature_of(what), AREA, contract.meaning_of(what), FAMILIES, HYPERVISORS) for what in whats
    )
    checks = tuple(
        Check(test.id, test.feature, cold=True, families=FAMILIES, timeout_s=LIMIT_S, meaning=test.meaning)
        for test in contract.contract_tests(HypervisorContract)
    )
    return Catalogue(features, checks)


def with_contract(known: Catalogue) -> Catalogue:
    """A catalogue of checks and the contract's behind it, to show runs of both kinds."""
    own = catalogue()
    return Catalogue((*known.features, *own.features), (*known.checks, *own.checks), known.drivers)


def judge(error: BaseException, *, in_check: bool) -> Judgement:
    """What an exception means of a driver.

    Other than with a check of a guest, whatever the driver raises, and whenever, is its failure, unless this machine
    is at fault; and no failure stops the rest, because the suite makes a new machine where one was lost.
    """
    from lab.checking.outcomes import CheckTimedOut, Judgement, NotApplicable, readable
    from lab.checking.outcomes import judge as of_a_guest
    from lab.errors import NotSupported
    from lab.results.record import Outcome

    del in_check
    if isinstance(error, NotSupported | NotApplicable) or type(error).__name__ == "Skipped":
        return of_a_guest(error, in_check=True)
    if isinstance(error, _LABS_OWN):
        found = of_a_guest(error, in_check=False)
        return Judgement(Outcome.BROKEN, Blame.LAB, found.reason, stops_cell=isinstance(error, LabDiskFull))
    if isinstance(error, AssertionError) or type(error).__name__ == "Failed":
        said = of_a_guest(error, in_check=True).reason if str(error) else _line_of(error)
        return Judgement(Outcome.FAILED, Blame.PRODUCT, readable(said))
    reason = str(error) if isinstance(error, CheckTimedOut) else f"{type(error).__name__}: {error}"
    return Judgement(Outcome.FAILED, Blame.PRODUCT, readable(reason))


def _line_of(error: BaseException) -> str:
    """The assertion itself, of one without a message: the suite was imported before pytest could prepare it."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"does not hold: {frames[-1].line}" if frames else "an assertion without a message"


def run_checks(
    session: CellSession, checks: Sequence[str], *, run: str, attempt: int, progress: Callable[[str], None]
) -> int:
    """Run exactly these tests of the contract over a session's host; append one record for each as it happens.

    Whatever happens, the host holds no machine of this run afterwards. Returns pytest's exit code. Raises
    `LabDiskFull` and `RunError` when a record cannot be written, and `KeyboardInterrupt` when interrupted.
    """
    import pytest

    from lab.checking.cell_run import CellRun, Where
    from lab.testing.plugin import QualificationPlugin

    where = Where(run=run, attempt=attempt, suites=_FILE.parent, directory=session.directory)
    cell_run = CellRun(session, catalogue(), where, wanted=frozenset(checks), progress=progress)
    cell_run.judge = judge
    plugin = QualificationPlugin(session, cell_run)
    arguments = ["-c", os.devnull, f"--rootdir={_FILE.parent}", "--disable-plugin-autoload", "-p", "no:cacheprovider"]
    try:
        with (
            Path(os.devnull).open("w", encoding="utf-8") as nowhere,
            redirect_stdout(nowhere),
            redirect_stderr(nowhere),
        ):
            status = int(pytest.main([*arguments, str(_FILE)], plugins=[plugin]))
    finally:
        _remove_what_is_left(session)
    cell_run.conclude(status)
    return status


def _remove_what_is_left(session: CellSession) -> None:
    """A driver that fails the contract may leave machines behind."""
    for owner, machine in session.hypervisor.machines():
        if owner == session.owner:
            _log.warning("qualification.left", machine=machine.name)
            try:
                machine.destroy()
            except LabError as reason:
                # The controller's reaping tries again, and names what stays.
                _log.error("qualification.stays", machine=machine.name, reason=reason)
