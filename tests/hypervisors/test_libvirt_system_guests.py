"""Real guests in a libvirtd in system mode, through the contract suite: images, consoles and memory of another user.

In every run one guest boots for a few of its tests; the whole of it runs where INTEROP_LAB_WHOLE_CONTRACT is set.
"""

from __future__ import annotations

import inspect
import os
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from lab.contracts import Firmware, Hypervisor, Profile
from lab.hypervisors import libvirt
from lab.testing.hypervisor import HypervisorContract
from tests.hypervisors.booting import BootingFixtures
from tests.hypervisors.libvirt_system import SystemDaemon, lacking

pytestmark = [
    pytest.mark.minutes,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(lacking()), reason=lacking()),
]
WHOLE = bool(os.environ.get("INTEROP_LAB_WHOLE_CONTRACT"))
IN_EVERY_RUN = (
    "test_the_host_says_what_it_is",
    "test_a_guest_computes_what_we_ask",
    "test_the_console_holds_what_the_guest_writes_there",
    "test_a_restored_machine_forgets_what_came_after",
)


def _part(contract: type) -> type:
    """The tests of the contract that this run takes."""
    names = [name for name, _ in inspect.getmembers(contract, inspect.isfunction) if name.startswith("test_")]
    assert set(IN_EVERY_RUN) <= set(names)
    left_out = {name: None for name in names if not WHOLE and name not in IN_EVERY_RUN}
    return type("PartOfHypervisorContract", (contract,), left_out)


class TestSystem(BootingFixtures, _part(HypervisorContract)):  # type: ignore[misc]
    """A q35 machine with virtio devices."""

    hardware = Profile("plain", Firmware.BIOS, "q35", "virtio", "virtio", 1, 256, max_vcpus=2, max_memory_mib=384)
    boot_timeout_s = 400.0

    @classmethod
    def connect(cls) -> AbstractContextManager[Hypervisor]:
        return _connected()


@contextmanager
def _connected() -> Iterator[Hypervisor]:
    daemon = SystemDaemon(Path(tempfile.mkdtemp(prefix="lab-sys-")))
    try:
        daemon.start()
        settings = libvirt.Settings(uri=daemon.uri, folder=str(daemon.disks), accelerator="tcg")
        with libvirt.connect("system", settings) as host:
            yield host
    finally:
        daemon.end()
