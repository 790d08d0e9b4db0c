"""Typing on the serial line of a QEMU machine, with real QEMU and guests of one sector."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from lab import process, waiting
from lab.contracts import MachineSpec, MachineState, TakesSerialInput
from lab.errors import HypervisorRefused
from lab.hypervisors import _qemu_serial as serial
from lab.hypervisors._qemu_host import QemuHost
from lab.hypervisors._qemu_machine import QemuMachine

Sector = Callable[..., MachineSpec]


@pytest.fixture
def echoing(qemu_host: QemuHost, sector: Sector) -> QemuMachine:
    machine = qemu_host.create(sector("echoing"))
    assert isinstance(machine, QemuMachine)
    assert isinstance(machine, TakesSerialInput)
    machine.start()
    # Until the boot sector runs, it is SeaBIOS that listens.
    waiting.until(lambda: b">" in machine.console(), what="the guest to run", timeout_s=60)
    return machine


def says(machine: QemuMachine, data: bytes) -> None:
    waiting.until(lambda: data in machine.console(), what=f"{data!r} on the console", timeout_s=60)


def test_what_is_typed_reaches_the_guest(echoing: QemuMachine) -> None:
    echoing.type_on_console(b"hello, \x03\xff\n")

    says(echoing, b"hello, \x03\xff\n")


def test_more_than_a_pipe_holds_is_typed_whole(echoing: QemuMachine) -> None:
    text = b"".join(b"%06d" % number for number in range(11_000))

    echoing.type_on_console(text)

    says(echoing, text[-60:])
    assert text in echoing.console()


def test_typing_works_when_the_keeper_is_gone(echoing: QemuMachine) -> None:
    running = echoing.directory.running()
    assert running is not None
    os.kill(running.keeper_pid, signal.SIGKILL)
    waiting.until(
        lambda: not process.is_alive(running.keeper_pid, running.keeper_started), what="the keeper", timeout_s=60
    )

    echoing.type_on_console(b"x")


def test_a_guest_that_does_not_listen_holds_up_nobody(qemu_host: QemuHost, sector: Sector) -> None:
    machine = qemu_host.create(sector("idle"))
    assert isinstance(machine, QemuMachine)
    machine.start()
    waiting.until(lambda: b"Booting from" in machine.console(), what="the firmware", timeout_s=60)

    with pytest.raises(
        HypervisorRefused, match=r"one takes nothing off its serial line: \d+ bytes were left after 1 s"
    ):
        serial.type_bytes(machine.directory, b"x" * 200_000, timeout_s=1.0)

    assert machine.state() is MachineState.RUNNING
    assert machine.screenshot()


def test_nobody_types_on_a_stopped_machine(qemu_host: QemuHost, sector: Sector) -> None:
    machine = qemu_host.create(sector("idle"))
    assert isinstance(machine, QemuMachine)

    with pytest.raises(HypervisorRefused, match="one is stopped"):
        machine.type_on_console(b"x")
