"""The contract suite for drivers: what `lab.contracts` promises, seen from inside a guest that really runs.

A driver's tests subclass it and supply three fixtures, all of class scope or wider:

    class TestQemu(HypervisorContract):
        @pytest.fixture(scope="class")
        @classmethod
        def hypervisor(cls): ...    # a connected Hypervisor

        @pytest.fixture(scope="class")
        @classmethod
        def boot_spec(cls): ...     # Callable[[str], MachineSpec]: a machine of that name with a bootable image;
                                     # all machines get the same seed, so one login fits all; with data_disk_mib
                                     # where the driver can resize a disk

        @pytest.fixture(scope="class")
        @classmethod
        def log_in(cls): ...        # Callable[[Machine], Channel]: waits until the guest answers

The guest needs `sh`, `cat`, `sync`, `sleep`, /proc, /sys, a writable /run in memory and /var on its disk, and
must obey the power button. A capability is tested when the driver has its methods and the host does not refuse it
in `limits()`. Nothing is believed that the driver says of itself: a token goes in at one end and must come out at
the other.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest

from lab import waiting
from lab.contracts import (
    CAPABILITY_PROTOCOLS,
    Channel,
    Hypervisor,
    Machine,
    MachineSpec,
    MachineState,
    Realness,
)
from lab.errors import HypervisorRefused, LabError
from lab.testing.contract import proves
from lab.testing.hypervisor_agent import AgentContract
from lab.testing.hypervisor_capabilities import CapabilityContract
from lab.testing.hypervisor_debugging import DebuggingContract
from lab.testing.hypervisor_exchange import ExchangeContract
from lab.testing.hypervisor_growth import GrowthContract
from lab.testing.hypervisor_movement import MovementContract
from lab.testing.hypervisor_trust import TrustContract

BootSpec = Callable[[str], MachineSpec]
LogIn = Callable[[Machine], Channel]
__all__ = ["BootSpec", "HypervisorContract", "LogIn"]


@dataclass
class Booted:
    """A machine that runs, and a way into it."""

    machine: Machine
    channel: Channel
    log_in: LogIn
    create: Callable[[], Machine]

    def sh(self, script: str, *, timeout_s: float = 60.0) -> str:
        """Run a script in the guest; it must succeed."""
        result = self.channel.run(["sh", "-c", f"set -e; {script}"], timeout_s=timeout_s)
        assert result.status == 0, f"{script!r} ended with {result.status} in the guest: {result.err}"
        return result.out

    def reconnect(self) -> None:
        """Log in anew, after the machine was somewhere else in time."""
        self.channel.close()
        self.channel = self.log_in(self.machine)

    def revive(self) -> None:
        """Make it run and answer again, whatever a test did to it."""
        state = self.machine.state()
        if state is MachineState.GONE:
            self.machine.destroy()
            self.machine = self.create()
        if state is not MachineState.RUNNING:
            self.machine.stop(force=True)
            self.machine.start()
            self.reconnect()
        try:
            self.channel.run(["true"], timeout_s=30)
        except LabError:
            self.reconnect()

    def boot_id(self) -> str:
        found = self.sh("cat /proc/sys/kernel/random/boot_id")
        assert found, "the guest has no boot id"
        return found


class RequiredContract:
    """What every driver must do."""

    @pytest.fixture(scope="class")
    @classmethod
    def look_back(cls) -> Callable[[Machine], None]:
        """What is done with the shared machine before it is destroyed; a qualification keeps its console."""
        return lambda machine: None

    @pytest.fixture(scope="class")
    @classmethod
    def shared(
        cls, hypervisor: Hypervisor, boot_spec: BootSpec, log_in: LogIn, look_back: Callable[[Machine], None]
    ) -> Iterator[Booted]:
        """One machine for the whole class: booting is what costs."""

        def create() -> Machine:
            return hypervisor.create(boot_spec(_new_name()))

        machine = create()
        try:
            machine.start()
            booted = Booted(machine, log_in(machine), log_in, create)
        except BaseException:
            try:
                look_back(machine)
            finally:
                machine.destroy()
            raise
        yield booted
        booted.channel.close()
        try:
            look_back(booted.machine)
        finally:
            booted.machine.destroy()

    @pytest.fixture
    def booted(self, shared: Booted) -> Booted:
        """The shared machine, running and answering."""
        shared.revive()
        shared.sh("mkdir -p /var/tmp")
        return shared

    @pytest.fixture
    def made(self, hypervisor: Hypervisor, boot_spec: BootSpec) -> Iterator[Machine]:
        """A machine that was never started."""
        machine = hypervisor.create(boot_spec(_new_name()))
        yield machine
        machine.destroy()

    # -----------------------------------------------------------------------------------------------------
    # The host

    @proves("driver.host")
    def test_the_host_says_what_it_is(self, hypervisor: Hypervisor) -> None:
        facts = hypervisor.facts()

        assert hypervisor.name
        assert facts.product
        assert any(character.isdigit() for character in facts.version)
        assert isinstance(facts.realness, Realness)

    @proves("driver.host")
    def test_limits_are_sentences_about_capabilities(self, hypervisor: Hypervisor) -> None:
        for capability, reason in hypervisor.limits().items():
            assert capability in CAPABILITY_PROTOCOLS
            assert len(reason.split()) >= 3, f"{capability}: {reason!r} is not a sentence"

    @proves("driver.host")
    def test_what_is_not_offered_has_a_reason(self, hypervisor: Hypervisor, made: Machine) -> None:
        for capability, protocol in CAPABILITY_PROTOCOLS.items():
            if not isinstance(made, protocol) and not isinstance(hypervisor, protocol):
                assert capability in hypervisor.limits(), f"nothing is said of {capability}, which is not there"

    @proves("driver.host")
    def test_an_image_whose_file_is_missing_is_refused(self, hypervisor: Hypervisor, boot_spec: BootSpec) -> None:
        image = boot_spec(_new_name()).image
        missing = replace(image, disk=image.disk.with_name("is-not-there"), digest="sha256:" + "0" * 64)

        with pytest.raises(LabError, match="is-not-there"):
            hypervisor.upload(missing)

    # -----------------------------------------------------------------------------------------------------
    # A machine that was made

    @proves("driver.machines")
    def test_a_new_machine_is_stopped(self, made: Machine) -> None:
        assert made.state() is MachineState.STOPPED
        assert not list(made.addresses())
        assert made.console() == b""

    @proves("driver.machines")
    def test_a_stopped_machine_has_no_endpoint(self, made: Machine) -> None:
        with pytest.raises(HypervisorRefused, match="stopped"):
            made.endpoint(22)

    @proves("driver.power")
    def test_stopping_a_stopped_machine_changes_nothing(self, made: Machine) -> None:
        made.stop()
        made.stop(force=True)

        assert made.state() is MachineState.STOPPED

    @proves("driver.machines")
    def test_a_machine_bears_its_owners_mark(self, hypervisor: Hypervisor, made: Machine) -> None:
        marks = {machine.name: owner for owner, machine in hypervisor.machines()}

        assert marks[made.name] == made.spec.owner

    @proves("driver.machines")
    def test_a_name_is_given_once(self, hypervisor: Hypervisor, made: Machine) -> None:
        with pytest.raises(HypervisorRefused, match=made.name):
            hypervisor.create(made.spec)
        assert made.state() is MachineState.STOPPED

    @proves("driver.machines")
    def test_a_name_that_could_be_a_path_or_an_option_is_refused(
        self, hypervisor: Hypervisor, boot_spec: BootSpec
    ) -> None:
        for name in ("../outside", "a/b", "", ".", "-x", "a\nb"):
            spec = replace(boot_spec(_new_name()), name=name)

            with pytest.raises(LabError):
                hypervisor.create(spec)
            assert name not in [machine.name for _, machine in hypervisor.machines()]

    @proves("driver.machines")
    def test_a_destroyed_machine_leaves_nothing(self, hypervisor: Hypervisor, boot_spec: BootSpec) -> None:
        machine = hypervisor.create(boot_spec(_new_name()))

        machine.destroy()
        machine.destroy()

        assert machine.state() is MachineState.GONE
        assert machine.name not in [other.name for _, other in hypervisor.machines()]
        machine.stop()
        again = hypervisor.create(machine.spec)
        again.destroy()

    @proves("driver.machines")
    def test_destroying_a_machine_leaves_the_others_alone(
        self, hypervisor: Hypervisor, boot_spec: BootSpec, made: Machine
    ) -> None:
        other = hypervisor.create(boot_spec(_new_name()))

        other.destroy()

        assert made.state() is MachineState.STOPPED
        assert made.name in [machine.name for _, machine in hypervisor.machines()]
        made.start()
        assert made.state() is MachineState.RUNNING

    @proves("driver.machines")
    def test_what_reproduces_a_machine_names_its_image(self, made: Machine) -> None:
        assert str(made.spec.image.kernel or made.spec.image.disk) in made.reproduce()

    # -----------------------------------------------------------------------------------------------------
    # A machine that runs

    @proves("driver.guest")
    def test_a_guest_computes_what_we_ask(self, booted: Booted) -> None:
        factor, summand = secrets.randbelow(1 << 20), secrets.randbelow(1 << 20)

        assert booted.sh(f"echo $(({factor} * 7 + {summand}))") == str(factor * 7 + summand)
        assert booted.machine.state() is MachineState.RUNNING
        assert booted.machine.addresses()

    @proves("driver.guest")
    def test_the_guest_has_the_hardware_of_the_profile(self, booted: Booted) -> None:
        profile = booted.machine.spec.profile

        assert int(booted.sh("grep -c ^processor /proc/cpuinfo")) == profile.vcpus
        total_mib = int(booted.sh("sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo")) / 1024
        # The kernel keeps a part for itself, and 64 MiB of bounce buffers where memory may be plugged in above the
        # first 4 GiB (kernel-parameters, "swiotlb"); more than was given there cannot be.
        buffers_mib = 64 if profile.max_memory_mib else 0
        assert profile.memory_mib * 0.6 - buffers_mib <= total_mib <= profile.memory_mib

    @proves("driver.guest")
    def test_the_console_holds_what_the_guest_writes_there(self, booted: Booted) -> None:
        token = secrets.token_hex(8)
        booted.sh(f"echo {token} >/dev/console")

        waiting.until(lambda: token.encode() in booted.machine.console(), what="the token on the console", timeout_s=60)

    @proves("driver.power")
    def test_starting_a_running_machine_changes_nothing(self, booted: Booted) -> None:
        before = booted.boot_id()

        booted.machine.start()

        assert booted.boot_id() == before

    @proves("driver.machines")
    def test_another_look_at_the_host_finds_the_running_machine(self, hypervisor: Hypervisor, booted: Booted) -> None:
        found = {machine.name: machine for _, machine in hypervisor.machines()}[booted.machine.name]

        assert found.state() is MachineState.RUNNING
        assert found.endpoint(22) == booted.machine.endpoint(22)
        assert found.console()[:200] == booted.machine.console()[:200]

    @proves("driver.power")
    def test_a_guest_shuts_down_in_order_when_asked(self, booted: Booted) -> None:
        token = secrets.token_hex(8)
        # Without sync: only a guest that unmounts its disk keeps it.
        booted.sh(f"echo {token} >/var/tmp/contract-asked")
        before = booted.boot_id()

        booted.machine.stop(timeout_s=120)

        assert booted.machine.state() is MachineState.STOPPED
        assert not list(booted.machine.addresses())
        booted.machine.start()
        booted.reconnect()
        assert booted.sh("cat /var/tmp/contract-asked") == token
        assert booted.boot_id() != before

    @proves("driver.power")
    def test_a_power_cut_ends_the_guest_at_once_and_keeps_what_was_written(self, booted: Booted) -> None:
        image = booted.machine.spec.image.disk
        digest = _digest(booted.machine.spec)
        token = secrets.token_hex(8)
        booted.sh(f"echo {token} >/var/tmp/contract-cut; sync; echo {token} >/run/contract-memory")

        booted.machine.stop(force=True)

        assert booted.machine.state() is MachineState.STOPPED
        with pytest.raises(LabError):
            booted.channel.run(["true"], timeout_s=10)
        booted.machine.start()
        booted.reconnect()
        assert booted.sh("cat /var/tmp/contract-cut") == token
        assert booted.sh("ls /run").split().count("contract-memory") == 0
        assert _digest(booted.machine.spec) == digest, f"the guest wrote into the image {image}"

    @proves("driver.power")
    def test_a_guest_that_powers_off_by_itself_is_stopped(self, booted: Booted) -> None:
        # In the background and later, so that the channel sees an orderly end.
        booted.sh("(sleep 1; poweroff) >/dev/null 2>&1 &")

        waiting.until(
            lambda: booted.machine.state() is MachineState.STOPPED, what="the guest to power off", timeout_s=120
        )


class HypervisorContract(  # pytest runs the last base first
    TrustContract,
    DebuggingContract,
    ExchangeContract,
    AgentContract,
    MovementContract,
    GrowthContract,
    CapabilityContract,
    RequiredContract,
):
    """What every driver must do, then what it says that it can do."""


def _new_name() -> str:
    return f"contract-{secrets.token_hex(4)}"


def _digest(spec: MachineSpec) -> str:
    whole = hashlib.sha256()
    with spec.image.disk.open("rb") as file:
        while block := file.read(1 << 22):
            whole.update(block)
    return whole.hexdigest()
