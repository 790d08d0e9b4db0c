"""The Xen driver through the contract suite, before a toolstack that keeps its domains in files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lab.contracts import MachineSpec
from lab.testing.hypervisor import HypervisorContract
from tests.hypervisors.test_simulated import _without_guests
from tests.hypervisors.xen_dom0 import FakeDom0


class TestXen(_without_guests(HypervisorContract)):  # type: ignore[misc]
    """Everything that the contract suite asks of a machine that has no guest; real guests are in `test_xen_local`."""

    @pytest.fixture(scope="class")
    @classmethod
    def fake(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeDom0]:
        with (
            pytest.MonkeyPatch.context() as patch,
            FakeDom0(tmp_path_factory.mktemp("dom0")).running() as fake,
        ):
            patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
            yield fake

    @pytest.fixture(scope="class")
    @classmethod
    def hypervisor(cls, fake: FakeDom0) -> Iterator[Any]:
        with fake.host() as host:
            yield host

    @pytest.fixture(scope="class")
    @classmethod
    def boot_spec(cls, fake: FakeDom0) -> Callable[[str], MachineSpec]:
        return fake.spec
