"""A plugin that is registered before the `CellRun` is made that its hooks belong to.

To register a plugin is to look at every name that it has, twice; that cost every cell two milliseconds, and what
stands here is registered once, in the process that cells fork from.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from lab.checking.cell_run import CellRun

STAND_IN = pytest.StashKey["StandIn"]()


class StandIn:
    """Passes each hook of a `CellRun` on; until there is one, only files are collected, none of which is imported."""

    def __init__(self) -> None:
        self._run: CellRun | None = None

    def serve(self, run: CellRun) -> None:
        """Be that run's from now on."""
        self._run = run

    @property
    def run(self) -> CellRun:
        """Raises `RuntimeError` when checks run that belong to no cell."""
        if self._run is None:
            raise RuntimeError("checks run before there is a cell")
        return self._run

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if self._run is not None:
            self._run.pytest_collectreport(report)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        if self._run is not None:
            self._run.pytest_collection_modifyitems(config, items)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        return (yield from self.run.pytest_runtest_protocol(item))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self.run.pytest_runtest_setup(item)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        return (yield from self.run.pytest_runtest_call(item))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        return (yield from self.run.pytest_runtest_makereport(item, call))

    def pytest_keyboard_interrupt(self) -> None:
        if self._run is not None:
            self._run.pytest_keyboard_interrupt()
