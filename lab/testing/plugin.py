"""The pytest plugin of a qualification: hands its session to the contract's fixtures, names the tests' checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from lab import waiting
from lab.checking.cell_run import CHECK_ID, CellRun
from lab.contracts import Channel, Machine, MachineSpec, SshLogin
from lab.errors import GuestError
from lab.testing import contract

if TYPE_CHECKING:
    from lab.provisioning.bring_up import CellSession

DATA_DISK_MIB = 67
"""Another size than the cells' data disk: a warm copy of the contract has a key of its own, so the lab's are safe."""


class Given:
    """What the contract's fixtures give to its tests."""

    def __init__(self, session: CellSession) -> None:
        from lab.guests.identity import Identity
        from lab.provisioning import keys, seed

        self._session = session
        self.hypervisor = session.hypervisor
        self.hypervisor.upload(session.image)
        identity = Identity.make("contract")
        self._seed = session.directory / "seed-contract.img"
        seed.write_seed(identity, keys.client_key().public, self._seed)
        self._login = SshLogin(session.entry.channel.user, keys.client_key().private, identity.host_key_public)

    def boot_spec(self, name: str) -> MachineSpec:
        """A machine of that name with the cell's guest and profile."""
        return MachineSpec(
            name=name,
            owner=self._session.owner,
            image=self._session.image,
            profile=self._session.inventory.profile_of(self._session.cell),
            seed=self._seed if self._session.entry.seed == "lab" else None,
            data_disk_mib=DATA_DISK_MIB,
        )

    def log_in(self, machine: Machine) -> Channel:
        """Wait until the guest answers."""
        from lab.guests.channels import ssh

        def attempt() -> Channel | None:
            try:
                return ssh.connect(machine.endpoint(self._session.entry.channel.port), self._login, timeout_s=20)
            except GuestError:
                return None

        limit_s = self._session.host.boot_limit_s(self._session.entry)
        return waiting.until(attempt, what=f"{machine.name} to answer over SSH", timeout_s=limit_s)

    def look_back(self, machine: Machine) -> None:
        """Keep what a machine leaves, before it is destroyed."""
        from lab.provisioning import evidence

        evidence.collect(machine, self._session.directory, guest=None)

    def close(self) -> None:
        # It holds the private host key of the guests.
        self._seed.unlink(missing_ok=True)


GIVEN = pytest.StashKey[Callable[[], Given]]()


_TEST = pytest.StashKey[contract.ContractTest]()


class QualificationPlugin:
    """Registers the recorder and hands the session over."""

    def __init__(self, session: CellSession, run: CellRun) -> None:
        self._session, self._run = session, run
        self._given: Given | None = None

    def pytest_configure(self, config: pytest.Config) -> None:
        config.stash[GIVEN] = self._give
        config.pluginmanager.register(self._run, "interop-lab-cell")

    def _give(self) -> Given:
        # When the first test asks, so that an image that cannot be made is noted at a test.
        if self._given is None:
            self._given = Given(self._session)
        return self._given

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        tests: dict[str, contract.ContractTest] = {}
        for item in items:
            owner = item.getparent(pytest.Class)
            if owner is not None and not tests:
                tests = {test.name: test for test in contract.contract_tests(owner.obj)}
            item.stash[_TEST] = tests[item.name]
            item.stash[CHECK_ID] = tests[item.name].id

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        # What the host refuses is told with its sentence, and no guest boots for it.
        capability = item.stash[_TEST].capability
        reason = self._session.hypervisor.limits().get(capability) if capability is not None else None
        if reason is not None:
            raise contract.HostRefuses(f"{self._session.hypervisor.name}: {reason}")

    def pytest_unconfigure(self) -> None:
        if self._given is not None:
            self._given.close()


def given(config: pytest.Config) -> Given:
    """What the fixtures of the running qualification give."""
    return config.stash[GIVEN]()
