"""Defects of a driver: the hypervisor says that it did something, or how something is, and it is not so."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Any

from lab.contracts import Machine, MachineState
from tests.defects.definition import Defect, replace_method

Bend = Callable[[Machine], None]


def answers(name: str, answer: object) -> Bend:
    """That method does nothing and always answers the same."""
    return lambda machine: replace_method(machine, name, lambda *given, **named: answer)


def together(*bends: Bend) -> Bend:
    """Each of them."""

    def every(machine: Machine) -> None:
        for bend in bends:
            bend(machine)

    return every


def instead(name: str, change: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Bend:
    """That method is another one, made from the true one."""
    return lambda machine: replace_method(machine, name, change(getattr(machine, name)))


def _pause_is_a_word(machine: Machine) -> None:
    paused = False
    state = machine.state

    def say(now: bool) -> None:
        nonlocal paused
        paused = now

    replace_method(machine, "pause", lambda: say(True))
    replace_method(machine, "resume", lambda: say(False))
    replace_method(machine, "state", lambda: MachineState.PAUSED if paused else state())


def _balloon_is_a_word(machine: Machine) -> None:
    said = machine.spec.profile.memory_mib

    def say(memory_mib: int) -> None:
        nonlocal said
        said = memory_mib

    replace_method(machine, "set_balloon", say)
    replace_method(machine, "balloon_mib", lambda: said)


def _black(*given: object) -> bytes:
    """A picture of 720 x 400 black points (Portable Network Graphics, third edition, section 5)."""
    rows = bytes(1 + 720 * 3) * 400
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", 720, 400, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    made = b"\x89PNG\r\n\x1a\n"
    for kind, body in chunks:
        made += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return made


def _without_every_seventh_line(console: bytes) -> bytes:
    lines = console.splitlines(keepends=True)
    return b"".join(line for number, line in enumerate(lines) if number % 7)


DEFECTS = (
    Defect(
        name="state-wrong",
        what="The hypervisor calls a running machine paused.",
        breaks=("boot.core",),
        says="the hypervisor says paused",
        machine=instead(
            "state", lambda true: lambda: MachineState.PAUSED if (now := true()) is MachineState.RUNNING else now
        ),
        collateral={
            "lifecycle.crash_dump": "what is paused is not crashed, and cannot be started anew",
            "lifecycle.heartbeat": "after the pause it should run again",
            "lifecycle.shutdown": "a machine that is taken for paused cannot be started",
        },
    ),
    Defect(
        name="address-wrong",
        what="The hypervisor reports another machine's address.",
        breaks=("net.ip_reporting",),
        says="reports .'10.0.2.99'",
        machine=answers("addresses", ("10.0.2.99",)),
    ),
    Defect(
        name="address-missing",
        what="The hypervisor knows no address of the guest.",
        breaks=("net.ip_reporting",),
        says="knows no address",
        machine=answers("addresses", ()),
    ),
    Defect(
        name="console-loses-lines",
        what="Every seventh line of the console is lost on its way to the host.",
        breaks=("device.serial_console",),
        says="wrote 200 lines",
        machine=instead("console", lambda true: lambda: _without_every_seventh_line(true())),
        collateral={"boot.core": "the line that says that user space is up may be among the lost"},
    ),
    Defect(
        name="screen-black",
        what="The screenshot is black whatever the display shows.",
        breaks=("device.video",),
        says="blank",
        machine=instead("screenshot", lambda true: _black),
    ),
    Defect(
        name="nmi-ignored",
        what="The hypervisor takes the order for an NMI and delivers none.",
        breaks=("channel.nmi",),
        says="count of NMIs to rise",
        machine=answers("inject_nmi", None),
    ),
    Defect(
        name="pause-is-a-word",
        what="The hypervisor says that the machine is paused, and it runs.",
        breaks=("lifecycle.heartbeat",),
        says="counted .* around a pause",
        machine=_pause_is_a_word,
    ),
    Defect(
        name="pause-not-told",
        what="The hypervisor calls a paused machine running.",
        breaks=("lifecycle.heartbeat",),
        says="paused, and the hypervisor says running",
        machine=instead(
            "state", lambda true: lambda: MachineState.RUNNING if (now := true()) is MachineState.PAUSED else now
        ),
    ),
    Defect(
        name="restore-changes-nothing",
        what="The hypervisor takes the order to restore a snapshot and does nothing.",
        breaks=("lifecycle.snapshot",),
        says="after the restore",
        machine=answers("restore", None),
    ),
    Defect(
        name="snapshots-not-listed",
        what="The hypervisor lists no snapshot although there is one.",
        breaks=("lifecycle.snapshot",),
        says="is not listed",
        machine=answers("snapshots", ()),
    ),
    Defect(
        name="power-cut-for-shutdown",
        what="Asked to shut the guest down, the hypervisor cuts the power.",
        breaks=("lifecycle.shutdown",),
        says="was not unmounted|the last write is lost",
        machine=instead("stop", lambda true: lambda *, force=False, timeout_s=60.0: true(force=True)),
    ),
    Defect(
        name="balloon-is-a-word",
        what="The hypervisor says that it took memory from the guest, and took none.",
        breaks=("memory.balloon",),
        says="the host took 128 MiB, the guest lost 0",
        machine=_balloon_is_a_word,
    ),
    Defect(
        name="disks-not-plugged",
        what="The hypervisor takes the order to plug a disk in and does nothing.",
        breaks=("storage.hotplug",),
        says="a new disk in the guest",
        machine=together(answers("attach_disk", None), answers("detach_disk", None)),
    ),
    Defect(
        name="plugged-disk-too-small",
        what="A plugged disk is smaller than was asked for.",
        breaks=("storage.hotplug",),
        says="attached 24 MiB",
        machine=instead("attach_disk", lambda true: lambda name, size_mib: true(name, size_mib - 4)),
    ),
    Defect(
        name="cards-not-plugged",
        what="The hypervisor takes the order to plug a network card in and does nothing.",
        breaks=("net.hotplug",),
        says="a network card with address",
        machine=together(answers("attach_nic", None), answers("detach_nic", None)),
    ),
    Defect(
        name="card-with-another-address",
        what="A plugged network card has another address than the one asked for.",
        breaks=("net.hotplug",),
        says="a network card with address",
        machine=instead("attach_nic", lambda true: lambda name, mac: true(name, mac[:-2] + "77")),
    ),
    Defect(
        name="resize-not-done",
        what="The hypervisor says that the disk grew, and it did not.",
        breaks=("storage.online_resize",),
        says="to have 100663296 bytes",
        machine=answers("resize_data_disk", None),
    ),
    Defect(
        name="resize-too-little",
        what="The disk grows by less than was asked for.",
        breaks=("storage.online_resize",),
        says="to have 100663296 bytes",
        machine=instead("resize_data_disk", lambda true: lambda size_mib: true(size_mib - 8)),
    ),
)
