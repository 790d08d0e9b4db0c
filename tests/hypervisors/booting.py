"""What the contract suite asks of a driver's tests: a host, machines that boot jeos, a way into them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from lab import process, waiting
from lab.contracts import Channel, Hypervisor, Image, Machine, MachineSpec, Owner, Profile, SshLogin
from lab.errors import GuestError
from lab.guests.channels import ssh
from lab.guests.identity import Identity
from lab.inventory.models import BuildSource
from lab.provisioning import images, keys, seed
from tests.greeting import until_it_greets


class BootingFixtures:
    """A subclass says which `hardware`, how to `connect`, and how long a boot may take at most."""

    hardware: Profile
    boot_timeout_s = 300.0

    @classmethod
    def connect(cls) -> AbstractContextManager[Hypervisor]:
        """The host."""
        raise AssertionError(f"{cls.__name__} does not say how to connect")

    @pytest.fixture(scope="class")
    @classmethod
    def jeos(cls) -> Image:
        return images.resolve(BuildSource(build="jeos"), progress=lambda _: None)

    @pytest.fixture(scope="class")
    @classmethod
    def identity(cls) -> Identity:
        return Identity.make("contract")

    @pytest.fixture(scope="class")
    @classmethod
    def login(cls, identity: Identity) -> SshLogin:
        return SshLogin("root", keys.client_key().private, identity.host_key_public)

    @pytest.fixture(scope="class")
    @classmethod
    def seed_disk(cls, identity: Identity, tmp_path_factory: pytest.TempPathFactory) -> Path:
        path = tmp_path_factory.mktemp("seed") / "seed.img"
        seed.write_seed(identity, keys.client_key().public, path)
        return path

    @pytest.fixture(scope="class")
    @classmethod
    def hypervisor(
        cls, jeos: Image, login: SshLogin, seed_disk: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[Hypervisor]:
        # Machines and warm copies of their own; image and key, asked for above, come from where everybody has them.
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
            patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
            with cls.connect() as host:
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
                return ssh.connect(machine.endpoint(22), login, timeout_s=60)
            except GuestError:
                return None

        def log_in(machine: Machine) -> Channel:
            until_it_greets(machine, timeout_s=cls.boot_timeout_s)
            return waiting.until(lambda: attempt(machine), what="the guest to answer", timeout_s=cls.boot_timeout_s)

        return log_in
