"""The contract suite over the host of a qualification; `lab.testing.qualification` runs this file."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lab.contracts import Hypervisor, Machine
from lab.testing import plugin
from lab.testing.hypervisor import BootSpec, HypervisorContract, LogIn


class TestDriver(HypervisorContract):
    """The driver of a live host."""

    @pytest.fixture(scope="class")
    @classmethod
    def hypervisor(cls, pytestconfig: pytest.Config) -> Hypervisor:
        return plugin.given(pytestconfig).hypervisor

    @pytest.fixture(scope="class")
    @classmethod
    def boot_spec(cls, pytestconfig: pytest.Config) -> BootSpec:
        return plugin.given(pytestconfig).boot_spec

    @pytest.fixture(scope="class")
    @classmethod
    def log_in(cls, pytestconfig: pytest.Config) -> LogIn:
        return plugin.given(pytestconfig).log_in

    @pytest.fixture(scope="class")
    @classmethod
    def look_back(cls, pytestconfig: pytest.Config) -> Callable[[Machine], None]:
        return plugin.given(pytestconfig).look_back
