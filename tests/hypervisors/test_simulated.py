"""The simulated host: required behaviour by the contract suite, faults that come when they are called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.contracts import Firmware, Image, MachineSpec, MachineState, Owner, Profile, Realness
from lab.errors import HypervisorRefused, MachineVanished, NotSupported
from lab.guests import triage
from lab.guests.channels import ssh
from lab.hypervisors import load, simulated
from lab.hypervisors._simulated_machine import CONSOLES, SimulatedMachine
from lab.testing.hypervisor import HypervisorContract

PROFILE = Profile("pc", Firmware.BIOS, "pc", "virtio", "virtio", 1, 256)
Start = Callable[[str], SimulatedMachine]


def _without_guests(contract: type) -> type:
    """The tests of the contract suite that need no guest; a machine without one cannot take the others."""
    needs = {
        name: None
        for name, test in inspect.getmembers(contract, inspect.isfunction)
        if name.startswith("test_") and {"booted", "keeper", "log_in"} & set(inspect.signature(test).parameters)
    }
    return type("HypervisorContractWithoutGuests", (contract,), needs)


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    disk = tmp_path_factory.mktemp("image") / "disk.raw"
    disk.write_bytes(bytes(512))
    return Image("none", "sha256:" + "0" * 64, disk, "raw")


def _spec(name: str, image: Image) -> MachineSpec:
    return MachineSpec(name, Owner("run", "host/guest/profile", 1, 1), image, PROFILE, None, 16)


class TestSimulated(_without_guests(HypervisorContract)):  # type: ignore[misc]
    """Everything that the contract suite asks of a machine before it runs."""

    @pytest.fixture(scope="class")
    @classmethod
    def hypervisor(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
            with simulated.connect("sim", simulated.Settings()) as host:
                yield host

    @pytest.fixture(scope="class")
    @classmethod
    def boot_spec(cls, image: Image) -> Callable[[str], MachineSpec]:
        return lambda name: _spec(name, image)


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image: Image) -> Iterator[Start]:
    """A machine that was started on a host with that fault."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    made: list[SimulatedMachine] = []

    def start(fault: str) -> SimulatedMachine:
        with simulated.connect("sim", simulated.Settings.model_validate({"fault": fault})) as host:
            machine = host.create(_spec(f"m{len(made)}", image))
        assert isinstance(machine, SimulatedMachine)
        made.append(machine)
        machine.start()
        return machine

    yield start
    for machine in made:
        machine.destroy()


def test_a_simulated_host_never_looks_real(started: Start) -> None:
    machine = started("none")

    with simulated.connect("sim", simulated.Settings()) as host:
        assert host.facts().realness is load("simulated").REALNESS is Realness.SIMULATED
        assert "imulated" in host.facts().product
    assert b"This console is simulated: there is no guest." in machine.console()
    assert machine.reproduce().startswith("# simulated: no command makes this machine")


def test_without_a_fault_it_runs_and_says_that_nobody_is_inside(started: Start) -> None:
    machine = started("none")

    assert machine.state() is MachineState.RUNNING
    with pytest.raises(NotSupported, match="m0 is simulated: it has no guest, so nothing answers on port 22"):
        machine.endpoint(22)


def test_power_goes_through_its_states_and_back(started: Start) -> None:
    machine = started("none")

    machine.pause()
    machine.pause()
    assert machine.state() is MachineState.PAUSED
    machine.resume()
    assert machine.state() is MachineState.RUNNING
    machine.stop()
    assert machine.state() is MachineState.STOPPED
    with pytest.raises(HypervisorRefused, match="m0 is stopped"):
        machine.pause()
    machine.destroy()
    with pytest.raises(HypervisorRefused, match="machine 'm0' is gone: it was destroyed"):
        machine.start()


def test_a_snapshot_brings_the_disk_back(started: Start) -> None:
    machine = started("none")
    machine.disk.write_bytes(b"early")
    machine.snapshot("../x y")
    machine.disk.write_bytes(b"late")

    machine.restore("../x y")

    assert machine.disk.read_bytes() == b"early"
    assert list(machine.snapshots()) == ["../x y"]
    with pytest.raises(HypervisorRefused, match=r"m0 has a snapshot '../x y' already"):
        machine.snapshot("../x y")
    machine.delete_snapshot("../x y")
    with pytest.raises(HypervisorRefused, match=r"m0 has no snapshot '../x y'"):
        machine.restore("../x y")


def test_another_process_finds_and_ends_a_machine(started: Start) -> None:
    machine = started("none")

    with simulated.connect("sim", simulated.Settings()) as host:
        ((owner, found),) = host.machines()
        assert owner == machine.spec.owner
        assert found.spec == machine.spec
        found.destroy()

    assert machine.state() is MachineState.GONE


@pytest.mark.parametrize(
    ("fault", "state", "answer"),
    [
        ("boot-hang", MachineState.RUNNING, ssh.Answer.SILENT),
        ("no-network", MachineState.RUNNING, ssh.Answer.SILENT),
        ("no-ssh", MachineState.RUNNING, ssh.Answer.CLOSED),
        ("panic", MachineState.CRASHED, ssh.Answer.SILENT),
    ],
)
def test_a_fault_comes_as_a_real_one_would(started: Start, fault: str, state: MachineState, answer: ssh.Answer) -> None:
    machine = started(fault)

    assert machine.state() is state
    # Who is silent is so for as long as one waits.
    patience_s = 1 if answer is ssh.Answer.SILENT else 60
    assert ssh.probe(machine.endpoint(22), timeout_s=patience_s) is answer


def test_a_machine_vanishes_when_it_is_told_to(started: Start) -> None:
    machine = started("vanishes")

    assert machine.state() is MachineState.GONE
    with pytest.raises(MachineVanished, match="the simulated machine m0 ended unasked"):
        machine.endpoint(22)
    machine.stop(force=True)
    assert machine.state() is MachineState.STOPPED


def test_a_host_refuses_when_it_is_told_to(started: Start) -> None:
    with pytest.raises(HypervisorRefused, match="the simulated host sim refuses to make m0: its fault is set so"):
        started("refuses")


@pytest.mark.parametrize(
    ("fault", "booted", "failure"),
    [("panic", False, "kernel-panic"), ("no-network", True, "none"), ("no-ssh", True, "none")],
)
def test_a_scripted_console_reads_as_what_it_plays(fault: str, booted: bool, failure: str) -> None:
    found = triage.triage(CONSOLES[fault])

    assert (found.booted, found.failure_class) == (booted, failure)


def test_a_hang_reads_as_a_boot_that_did_not_end() -> None:
    assert not triage.triage(CONSOLES["boot-hang"]).booted
