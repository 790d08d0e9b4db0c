"""The Xen driver with real guests, on a real Xen that the lab makes: the contract suite that every driver passes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.contracts import Hypervisor, Image, SshLogin
from lab.hypervisors import _xen_host
from lab.inventory.models import BuildSource
from lab.provisioning import images, made_host
from lab.testing.hypervisor import HypervisorContract
from tests.hypervisors.booting import BootingFixtures
from tests.hypervisors.xen_dom0 import HARDWARE

pytestmark = pytest.mark.minutes


class TestPv(BootingFixtures, HypervisorContract):
    """Paravirtual guests on Debian's Xen, under emulation."""

    hardware = HARDWARE
    boot_timeout_s = 240.0

    @pytest.fixture(scope="class")
    @classmethod
    def hypervisor(cls, jeos: Image, login: SshLogin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hypervisor]:
        image = images.resolve(BuildSource(build="xen-host"), progress=lambda _: None)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
            made = made_host.restore("contract", image, lambda _: None)
            try:
                with _xen_host.connect_to("contract", made.reached()) as host:
                    yield host
            finally:
                made.destroy()
