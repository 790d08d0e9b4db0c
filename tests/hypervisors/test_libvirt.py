"""The libvirt driver with real guests in a libvirtd of its own, through the contract suite that every driver passes."""

from __future__ import annotations

from contextlib import AbstractContextManager

import pytest

from lab.contracts import Firmware, Hypervisor, Profile
from lab.hypervisors import libvirt
from lab.testing.hypervisor import HypervisorContract
from tests.hypervisors.booting import BootingFixtures

pytestmark = [pytest.mark.minutes, pytest.mark.timeout(900)]


class LibvirtFixtures(BootingFixtures):
    """What the contract suite asks for; a subclass chooses the hardware."""

    hardware = Profile("plain", Firmware.BIOS, "q35", "virtio", "virtio", 1, 256, max_vcpus=2, max_memory_mib=384)
    boot_timeout_s = 400.0

    @classmethod
    def connect(cls) -> AbstractContextManager[Hypervisor]:
        return libvirt.connect("contract", libvirt.Settings(accelerator="tcg"))


class TestLibvirt(LibvirtFixtures, HypervisorContract):
    """A q35 machine with virtio devices: every capability."""
