"""The pytest plugin: runs the checks of one cell, from the lab's runner or from `pytest suites --lab-cell ...`.

Without its options and without a session handed over it does nothing: pytest loads it as an entry point in every
project where the lab is installed, so it imports what it needs when it is needed and has no fixtures of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from lab.checking.cell_run import CellRun, Session

_PLUGIN = "interop-lab-cell"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("interop-lab", "checks of an interoperability lab")
    group.addoption("--lab-inventory", metavar="INVENTORY", help="folder of the inventory")
    group.addoption("--lab-cell", metavar="HOST/GUEST/PROFILE", help="the cell to run the checks in")
    group.addoption("--lab-directory", metavar="RUN", help="directory for the run (default: a new one in reports/runs)")


def pytest_configure(config: pytest.Config) -> None:
    inventory, cell = config.getoption("--lab-inventory", None), config.getoption("--lab-cell", None)
    if inventory is None and cell is None:
        return
    if inventory is None or cell is None:
        raise pytest.UsageError("--lab-inventory and --lab-cell belong together")
    from lab.checking.standalone import opened
    from lab.errors import LabError

    stack = ExitStack()
    config.add_cleanup(stack.close)
    try:
        run = stack.enter_context(opened(Path(inventory), cell, config.getoption("--lab-directory")))
    except LabError as reason:
        raise pytest.UsageError(str(reason)) from reason
    _register(config, run)


def _register(config: pytest.Config, run: CellRun) -> None:
    from lab.checking import fixtures, prepared
    from lab.checking.stand_in import STAND_IN

    config.stash[fixtures.CELL_RUN] = run
    if STAND_IN in config.stash:
        config.stash[STAND_IN].serve(run)
    else:
        config.pluginmanager.register(run, _PLUGIN)
    if not config.pluginmanager.is_registered(fixtures):
        config.pluginmanager.register(fixtures, prepared.FIXTURES)
    if config.getoption("allure_report_dir", None):
        from lab.checking.allure_labels import AllureLabels

        config.pluginmanager.register(AllureLabels(run))


def run_checks(  # noqa: PLR0913 - the runner's one call, everything by name
    session: Session,
    checks: Sequence[str],
    *,
    run: str,
    attempt: int,
    suites: Path,
    progress: Callable[[str], None],
) -> int:
    """Run exactly these checks in an open session; append one record for each as it happens.

    `progress` is told the id of every check that is done. Returns pytest's exit code. Raises `InventoryProblems`
    when the suites cannot be read, `ConfigurationError` for an unknown check, `LabDiskFull` and `RunError` when a
    record cannot be written, and `KeyboardInterrupt` when interrupted.
    """
    from lab.checking import prepared
    from lab.checking.cell_run import CellRun, Where
    from lab.errors import ConfigurationError

    suites = suites.resolve()
    known = prepared.catalogue_of(suites)
    unknown = [name for name in checks if name not in known.checks_by_id]
    if unknown:
        raise ConfigurationError(f"no check {unknown[0]!r} in {suites}")
    where = Where(run=run, attempt=attempt, suites=suites, directory=session.directory)
    cell_run = CellRun(session, known, where, wanted=frozenset(checks), progress=progress)
    status = _pytest(suites, checks, cell_run)
    cell_run.conclude(status)
    return status


def _pytest(suites: Path, checks: Sequence[str], run: CellRun) -> int:
    if not checks:
        return int(pytest.ExitCode.NO_TESTS_COLLECTED)
    from lab.checking import prepared

    files = dict.fromkeys(suites / name.partition("::")[0] for name in checks)
    return prepared.run(suites, tuple(files), lambda config: _register(config, run))


def feature_of(check: str, suites: Path) -> str:
    """The feature that a check belongs to; "unknown" when the suites do not hold it (any more)."""
    from lab.checking import prepared

    found = prepared.catalogue_of(suites.resolve()).checks_by_id.get(check)
    return found.feature if found else "unknown"
