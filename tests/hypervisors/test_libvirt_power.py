"""Machines in a libvirtd of the lab's own with guests of one sector: states, faults, and a daemon that dies."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab import process, waiting
from lab.contracts import MachineState, Realness
from lab.errors import HostError, HypervisorRefused, LabBusy, MachineVanished, WaitedTooLong
from lab.hypervisors import _libvirt_console as console
from lab.hypervisors import _libvirt_daemon as daemons
from lab.hypervisors import _libvirt_xml as xml
from lab.hypervisors._libvirt_accelerator import prove
from lab.hypervisors._libvirt_host import LibvirtHost
from lab.hypervisors._libvirt_link import LibvirtRefused
from lab.hypervisors._libvirt_machine import LibvirtMachine
from lab.hypervisors._libvirt_xml import element
from tests.hypervisors import libvirt_own as own

Make = Callable[..., LibvirtMachine]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LibvirtHost]:
    with own.connected(tmp_path_factory) as host:
        yield host


@pytest.fixture
def make(host: LibvirtHost, tmp_path: Path) -> Iterator[Make]:
    """A machine with a guest of one sector, not started."""

    def made(guest: str, **changes: Any) -> LibvirtMachine:
        machine = host.create(replace(own.spec_of(tmp_path, guest), **changes))
        assert isinstance(machine, LibvirtMachine)
        return machine

    yield made
    for _, machine in host.machines():
        machine.destroy()


def _qemu_of(machine: LibvirtMachine) -> int:
    """The process of a machine, told by its UUID."""
    wanted = machine.uuid.encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if wanted in words and b"-uuid" in words:
            return int(folder.name)
    raise AssertionError("no QEMU runs that machine")


def _becomes(machine: LibvirtMachine, state: MachineState) -> None:
    waiting.until(lambda: machine.state() is state, what=f"the machine to be {state}", timeout_s=60)


# ---------------------------------------------------------------------------------------------------------
# The host


def test_the_host_is_libvirt_with_the_hypervisor_below_it(host: LibvirtHost) -> None:
    facts = host.facts()

    assert (facts.product, facts.realness, facts.accelerator) == ("libvirt", Realness.REAL, "tcg")
    assert facts.details["hypervisor"].startswith("QEMU ")
    assert facts.details["uri"].startswith("qemu+unix:///session?socket=/")


def test_the_proof_of_kvm_runs_a_guest_to_its_end(host: LibvirtHost) -> None:
    # Where KVM is a trap nothing else shows that the proof could succeed.
    assert prove(host.link, "qemu", limit_s=60.0) == (
        True,
        "software emulation ran a test guest of libvirt with the right result",
    )


# ---------------------------------------------------------------------------------------------------------
# States


def test_a_machine_runs_pauses_goes_on_and_ends(make: Make) -> None:
    machine = make("idle")
    machine.start()
    machine.start()
    assert machine.state() is MachineState.RUNNING
    machine.pause()
    machine.pause()
    assert machine.state() is MachineState.PAUSED
    with pytest.raises(HypervisorRefused, match="one is paused"):
        machine.start()
    machine.resume()
    machine.resume()
    assert machine.state() is MachineState.RUNNING
    with pytest.raises(WaitedTooLong, match="for one to shut down after the power button"):
        machine.stop(timeout_s=1.0)
    machine.stop(force=True)
    assert machine.state() is MachineState.STOPPED
    with pytest.raises(HypervisorRefused, match="one is stopped"):
        machine.pause()


def test_a_guest_that_powers_off_is_stopped(make: Make) -> None:
    machine = make("powering_off")

    machine.start()

    _becomes(machine, MachineState.STOPPED)


def test_a_guest_that_panics_has_crashed_and_can_be_started_again(make: Make) -> None:
    machine = make("panicking")
    machine.start()
    _becomes(machine, MachineState.CRASHED)
    with pytest.raises(HypervisorRefused, match="one is crashed"):
        machine.endpoint(22)

    machine.stop(force=True)

    assert machine.state() is MachineState.STOPPED


def test_a_guest_that_resets_itself_is_counted(make: Make) -> None:
    machine = make("resetting")

    machine.start()

    waiting.until(lambda: machine.resets() >= 2, what="two resets", timeout_s=60)
    machine.stop(force=True)
    counted = machine.resets()
    assert machine.resets() == counted
    assert counted >= 2


def test_a_guest_whose_qemu_was_killed_has_vanished(make: Make) -> None:
    machine = make("idle")
    machine.start()
    os.kill(_qemu_of(machine), signal.SIGKILL)

    _becomes(machine, MachineState.GONE)

    with pytest.raises(MachineVanished, match=f"one ended unasked: libvirt says that its domain {machine.uuid}"):
        machine.pause()
    machine.stop(force=True)
    assert machine.state() is MachineState.STOPPED


def test_the_console_is_that_of_all_boots_and_bounded(make: Make) -> None:
    machine = make("endless")
    machine.start()
    waiting.until(lambda: len(machine.console()) > 1000, what="the guest to speak", timeout_s=60)
    machine.stop(force=True)
    before = machine.console()
    machine.start()

    waiting.until(lambda: len(machine.console()) > len(before), what="the second boot to speak", timeout_s=60)

    assert machine.console().startswith(before[:100])


def test_what_is_typed_comes_to_the_guest_and_back(make: Make) -> None:
    machine = make("echoing")
    machine.start()
    waiting.until(lambda: b">" in machine.console(), what="the guest to wait", timeout_s=60)

    machine.type_on_console(b"one line\n" + b"x" * 3000 + b"end")

    waiting.until(lambda: machine.console().endswith(b"end"), what="the guest to echo", timeout_s=60)
    assert b">one line\n" + b"x" * 3000 + b"end" in machine.console()


@pytest.mark.parametrize("ended_by", ["us", "its own", "its daemon"])
def test_nothing_watches_a_console_that_ended(
    make: Make, host: LibvirtHost, ended_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drained: list[int] = []
    drain = console._drain
    monkeypatch.setattr(console, "_drain", lambda *words: (drained.append(1), drain(*words)))
    machine, other = make("echoing"), make("idle", name="two")
    machine.start()
    machine.type_on_console(b"x")

    if ended_by == "us":
        machine.destroy()
    elif ended_by == "its own":
        os.kill(_qemu_of(machine), signal.SIGKILL)
    else:
        own.end(daemons.daemons_of(own.HOST)[0], kill=True)

    # Another machine's events come through the same thread: so it has come by the end of this one meanwhile.
    for _ in range(5):
        other.start()
        other.stop(force=True)
    assert len(drained) < 20


def test_a_machine_that_slept_goes_on(make: Make) -> None:
    machine = make("endless")
    machine.start()
    machine.save_state()
    assert machine.state() is MachineState.STOPPED
    assert machine.has_saved_state()

    machine.start()

    assert machine.state() is MachineState.RUNNING
    assert not machine.has_saved_state()


# ---------------------------------------------------------------------------------------------------------
# What is not ours, and what is locked


def test_a_domain_of_somebody_else_with_our_name_is_not_touched(host: LibvirtHost, make: Make) -> None:
    foreign = element(
        "domain",
        element("name", text="lab-one"),
        element("memory", text=16, unit="MiB"),
        element("vcpu", text=1),
        element("os", element("type", text="hvm", arch="x86_64")),
        type_="qemu",
    )
    uuid = host.link.ask("defining", lambda it: it.defineXML(xml.text(foreign)).UUIDString())
    try:
        with pytest.raises(
            HypervisorRefused, match="own has a domain 'lab-one' that is not the lab's; it was not touched"
        ):
            make("idle")
        assert [machine.name for _, machine in host.machines()] == []
        assert host.link.ask("looking", lambda it: it.lookupByName("lab-one").UUIDString()) == uuid
    finally:
        host.link.ask("removing", lambda it: it.lookupByUUIDString(uuid).undefine())


def test_a_disk_that_somebody_else_uses_is_told_as_busy(make: Make) -> None:
    machine = make("idle")
    path = machine._machine.path("root")
    with subprocess.Popen(["qemu-io", "-f", "qcow2", path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as somebody:
        assert somebody.stdin is not None
        assert somebody.stdout is not None
        somebody.stdin.write(b"length\n")
        somebody.stdin.flush()
        somebody.stdout.readline()  # it has the disk open now
        with pytest.raises(LabBusy, match='Failed to get "write" lock'):
            machine.start()
        somebody.communicate(b"quit\n", 30)
    assert machine.state() is MachineState.STOPPED
    machine.start()
    assert machine.state() is MachineState.RUNNING


def test_xml_that_libvirts_schema_does_not_know_is_refused_with_its_words(host: LibvirtHost) -> None:
    sdk_validate = 1 << 0  # VIR_DOMAIN_DEFINE_VALIDATE

    with pytest.raises(LibvirtRefused, match="own: defining: XML document failed to validate against schema"):
        host.link.ask(
            "defining", lambda it: it.defineXMLFlags("<domain type='qemu'><nonsense/></domain>", sdk_validate)
        )


# ---------------------------------------------------------------------------------------------------------
# A daemon that dies


def test_a_machine_runs_on_and_is_found_again_when_libvirtd_was_killed(host: LibvirtHost, make: Make) -> None:
    machine = make("idle")
    machine.start()
    qemu = _qemu_of(machine)
    own.end(daemons.daemons_of(own.HOST)[0], kill=True)

    assert machine.state() is MachineState.RUNNING

    assert _qemu_of(machine) == qemu
    machine.pause()
    assert machine.state() is MachineState.PAUSED
    assert [found.name for _, found in host.machines()] == ["one"]


def test_a_call_during_which_libvirtd_dies_is_made_again(host: LibvirtHost) -> None:
    daemon = daemons.daemons_of(own.HOST)[0]
    died: list[int] = []

    def ask(connection: Any) -> str:
        if not died:
            died.append(1)
            own.end(daemon, kill=True)
        return str(connection.getHostname())

    assert host.link.ask("asking for its name", ask)


def test_a_call_that_must_not_be_made_twice_is_not(host: LibvirtHost) -> None:
    daemon = daemons.daemons_of(own.HOST)[0]
    calls: list[int] = []

    def ask(connection: Any) -> str:
        calls.append(1)
        own.end(daemon, kill=True)
        return str(connection.getHostname())

    with pytest.raises(HostError, match="was lost while naming it; it may be done or not"):
        host.link.ask("naming it", ask, again=False)

    assert len(calls) == 1
    assert host.facts().version


def test_a_call_that_does_not_end_is_given_up(host: LibvirtHost) -> None:
    import threading

    with pytest.raises(HypervisorRefused, match="libvirt did not end sleeping within 0 s"):
        host.link.ask("sleeping", lambda it: threading.Event().wait(5), limit_s=0.2)


def test_two_processes_that_need_the_daemon_start_one(host: LibvirtHost) -> None:
    daemon = daemons.daemons_of(own.HOST)[0]
    own.end(daemon, kill=True)

    host.link.ask("asking for its name", lambda it: it.getHostname())
    pid = daemon.pid()
    daemon.ensure()

    assert daemon.pid() == pid
    assert pid is not None
    assert process.start_time(pid) is not None
