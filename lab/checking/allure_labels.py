"""Labels for allure-pytest, when somebody runs the suites with `--alluredir`."""

from __future__ import annotations

from typing import Any

import pytest

from lab.checking.cell_run import CellRun

_SEVERITIES = {"smoke": "critical", "conformance": "normal", "performance": "minor"}


class AllureLabels:
    """A pytest plugin that labels each check with its feature, severity, cell and realness."""

    def __init__(self, run: CellRun) -> None:
        self._run = run

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        import allure

        dynamic: Any = allure.dynamic  # it has no annotations
        check = self._run.current.check
        dynamic.feature(check.feature)
        dynamic.severity(_SEVERITIES[check.level])
        dynamic.parameter("cell", self._run.session.cell.name)
        dynamic.label("realness", str(self._run.session.realness))
