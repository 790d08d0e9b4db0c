"""The QEMU driver with real guests, through the contract suite that every driver passes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import process, waiting
from lab.contracts import Channel, Firmware, Hypervisor, Image, Machine, MachineSpec, Owner, Profile, SshLogin
from lab.errors import GuestError
from lab.guests.channels import ssh
from lab.guests.identity import Identity
from lab.hypervisors import qemu
from lab.inventory.models import BuildSource
from lab.provisioning import images, keys, seed
from lab.testing.hypervisor import HypervisorContract

pytestmark = pytest.mark.minutes


@pytest.fixture(scope="session")
def jeos() -> Image:
    return images.resolve(BuildSource(build="jeos"), progress=lambda _: None)


@pytest.fixture(scope="session")
def identity() -> Identity:
    return Identity.make("contract")


@pytest.fixture(scope="session")
def seed_disk(identity: Identity, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("seed") / "seed.img"
    seed.write_seed(identity, keys.client_key().public, path)
    return path


class QemuFixtures:
    """What the contract suite asks for; a subclass chooses the hardware."""

    hardware = Profile("plain", Firmware.BIOS, "q35", "virtio", "virtio", 1, 256, max_vcpus=2, max_memory_mib=384)

    @pytest.fixture(scope="class")
    @classmethod
    def hypervisor(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hypervisor]:
        # Machines and warm copies of their own; the image and the key come from where everybody has them.
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
            patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
            with qemu.connect("contract", qemu.Settings(accelerator="tcg")) as host:
                yield host
                for _, machine in host.machines():
                    machine.destroy()

    @pytest.fixture(scope="class")
    @classmethod
    def boot_spec(cls, jeos: Image, seed_disk: Path) -> Callable[[str], MachineSpec]:
        owner = Owner("contract", "host/guest/profile", os.getpid(), process.start_time(os.getpid()) or 0)
        return lambda name: MachineSpec(name, owner, jeos, cls.hardware, seed_disk, data_disk_mib=64)

    @pytest.fixture(scope="class")
    @classmethod
    def log_in(cls, login: SshLogin) -> Callable[[Machine], Channel]:
        def attempt(machine: Machine) -> Channel | None:
            try:
                return ssh.connect(machine.endpoint(22), login, timeout_s=20)
            except GuestError:
                return None

        return lambda machine: waiting.until(lambda: attempt(machine), what="the guest to answer", timeout_s=240)


@pytest.fixture(scope="session")
def login(identity: Identity) -> SshLogin:
    return SshLogin("root", keys.client_key().private, identity.host_key_public)


class TestQemu(QemuFixtures, HypervisorContract):
    """A q35 machine with virtio devices: every capability."""
