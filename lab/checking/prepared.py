"""pytest, started ahead: what is the same for every cell happens once in the server that cells fork from.

Its configuration, its plugins and its fixtures are two thirds of what pytest costs a cell with one check, and finding
the files with checks is a sixth of the rest. The suites are not imported here: their code may crash or hang, and that
must cost one cell and not all of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lab import catalogue, log
from lab.catalogue import Catalogue
from lab.checking import fixtures
from lab.checking.stand_in import STAND_IN, StandIn
from lab.errors import LabError

_log = log.get(__name__)

FIXTURES = "interop-lab-fixtures"

# What a check has no use for; each costs every cell half a millisecond.
_UNNEEDED = (
    *("cacheprovider", "debugging", "doctest", "faulthandler", "junitxml", "legacypath", "pastebin", "setuponly"),
    *("setupplan", "stepwise", "subtests", "terminal", "terminalprogress", "threadexception", "unittest"),
    "unraisableexception",
)


@dataclass(frozen=True)
class Prepared:
    """A pytest session that has begun and imported nothing yet; good for one run of checks."""

    suites: Path
    session: pytest.Session
    found: dict[Path, pytest.Module] = field(default_factory=dict)

    def find(self, files: Iterable[Path]) -> None:
        """Find the modules of files. Raises pytest's `UsageError` when one is not there."""
        with _quiet():
            nodes = self.session.perform_collect([str(file) for file in files], genitems=False)
        self.found.update({node.path: node for node in nodes if isinstance(node, pytest.Module)})

    def collect(self, files: Sequence[Path]) -> Sequence[pytest.Item]:
        """What the session's own `perform_collect` does, without looking for files that were found already."""
        session, hook = self.session, self.session.config.hook
        session.items = [item for file in files for item in session.genitems(self.found[file])]
        try:
            hook.pytest_collection_modifyitems(session=session, config=session.config, items=session.items)
        finally:
            hook.pytest_collection_finish(session=session)
        session.testscollected = len(session.items)
        return session.items


_ahead: list[Prepared] = []
_catalogues: dict[Path, Catalogue] = {}


def ahead(suites: Path) -> None:
    """Read the catalogue and begin a session for the processes that fork from this one. Raises nothing of the lab's."""
    try:
        _catalogues[suites] = catalogue.load(suites)
    except LabError as reason:
        # Every cell meets the same and says so where it is seen.
        _log.debug("suites.unreadable", suites=suites, reason=reason)
        return
    begun = _begin(suites)
    files = dict.fromkeys(suites / check.partition("::")[0] for check in _catalogues[suites].checks_by_id)
    try:
        begun.find(files)
    except (pytest.UsageError, OSError) as reason:
        # A file went away meanwhile. The cells that want it say so.
        _log.debug("suites.unfound", suites=suites, reason=reason)
        begun = _begin(suites)
    _ahead[:] = [begun]


def forget(suites: Path) -> None:
    """Undo `ahead`: those suites are gone."""
    _catalogues.pop(suites, None)
    _ahead[:] = [prepared for prepared in _ahead if prepared.suites != suites]


def catalogue_of(suites: Path) -> Catalogue:
    """The catalogue, as it was read ahead or as it is now. Raises `InventoryProblems`."""
    return _catalogues.get(suites) or catalogue.load(suites)


def run(suites: Path, files: Sequence[Path], begun: Callable[[pytest.Config], None]) -> int:
    """Run the checks of some files; `begun` may register plugins. Returns pytest's exit code.

    What pytest and the checks print goes nowhere: the terminal belongs to the run.
    """
    usable = [prepared for prepared in _ahead if prepared.suites == suites]
    _ahead.clear()
    prepared = usable[0] if usable else _begin(suites)
    session, config = prepared.session, prepared.session.config
    config.args = [str(file) for file in files]
    if all(file in prepared.found for file in files):
        # Where pytest calls its own, between the hooks of its plugins; and pytest's class is final.
        vars(session)["perform_collect"] = lambda: prepared.collect(files)
    with _quiet():
        try:
            begun(config)
            session.exitstatus = _judged(session)
        finally:
            config.hook.pytest_sessionfinish(session=session, exitstatus=session.exitstatus)
            config._ensure_unconfigure()
    return int(session.exitstatus)


def _begin(suites: Path) -> Prepared:
    """What `pytest.main` does before it collects (pytest 9.1, `_main` and `wrap_session`)."""
    from _pytest.config import _prepareconfig

    # No conftest.py: it would be found where the lab was started, and run here. Without --confcutdir pytest collects
    # every folder above the suites too, up to the root of this machine.
    words = ["-c", os.devnull, f"--rootdir={suites}", f"--confcutdir={suites}", "--noconftest", "--capture=no"]
    words += ["--import-mode=importlib", "--disable-plugin-autoload", "--continue-on-collection-errors"]
    words += [word for name in _UNNEEDED for word in ("-p", f"no:{name}")]
    with _quiet():
        config = _prepareconfig(words)
        session = pytest.Session.from_config(config)
        config.pluginmanager.register(fixtures, FIXTURES)
        config.stash[STAND_IN] = stand_in = StandIn()
        config.pluginmanager.register(stand_in)
        config._do_configure()
        config.hook.pytest_sessionstart(session=session)
    return Prepared(suites, session)


def _judged(session: pytest.Session) -> int:
    """Collect and run, and name how that ended as pytest itself does."""
    hook = session.config.hook
    try:
        hook.pytest_collection(session=session)
        hook.pytest_runtestloop(session=session)
    except session.Failed:
        return pytest.ExitCode.TESTS_FAILED
    except pytest.UsageError as reason:
        _log.error("checks.usage", reason=reason)
        return pytest.ExitCode.USAGE_ERROR
    except (KeyboardInterrupt, pytest.exit.Exception):
        hook.pytest_keyboard_interrupt(excinfo=pytest.ExceptionInfo.from_current())
        return pytest.ExitCode.INTERRUPTED
    except Exception as reason:  # noqa: BLE001 - whatever it was, the checks that have no record get one
        _log.error("checks.internal", reason=f"{type(reason).__name__}: {reason}")
        return pytest.ExitCode.INTERNAL_ERROR
    if session.testsfailed:
        return pytest.ExitCode.TESTS_FAILED
    return pytest.ExitCode.OK if session.testscollected else pytest.ExitCode.NO_TESTS_COLLECTED


@contextmanager
def _quiet() -> Iterator[None]:
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield
