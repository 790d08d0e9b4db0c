"""Defects of what a hypervisor does with a whole machine: sleep, move, start from elsewhere, join, hold still."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from lab.contracts import Machine, MachineState, Migration
from lab.hypervisors import _qemu_tpm
from tests.defects.definition import Defect, replace_method
from tests.defects.drivers import answers, instead, together


def _moves_by_booting(machine: Machine) -> None:
    """Bring it there by starting it there: place and numbers are right, the memory is another."""
    driver: Any = machine
    place = [driver.place()]
    places = {place[0]}
    elsewhere = driver.destinations

    def destinations() -> tuple[str, ...]:
        places.update(elsewhere())
        return tuple(sorted(places - {place[0]}))

    def move(destination: str, *, with_storage: bool, timeout_s: float = 300.0) -> Migration:
        del with_storage, timeout_s
        driver.stop(force=True)
        driver.start()
        place[0] = destination
        return Migration(seconds=2.0, downtime_ms=200.0, transferred_bytes=64 << 20)

    replace_method(machine, "migrate_live", move)
    replace_method(machine, "place", lambda: place[0])
    replace_method(machine, "destinations", destinations)


def _sleeps_by_power_off(machine: Machine) -> None:
    asleep = [False]
    start = machine.start

    def save() -> None:
        machine.stop(force=True)
        asleep[0] = True

    def wake() -> None:
        asleep[0] = False  # first: the driver asks itself whether there is memory to go on with
        start()

    def forget() -> None:
        asleep[0] = False

    replace_method(machine, "save_state", save)
    replace_method(machine, "has_saved_state", lambda: asleep[0])
    replace_method(machine, "discard_saved_state", forget)
    replace_method(machine, "start", wake)


def _discards_nothing(machine: Machine) -> None:
    said = [False]
    driver: Any = machine
    true, start = driver.has_saved_state, machine.start

    def say() -> None:
        said[0] = True

    def go_on() -> None:
        said[0] = False  # first: the driver asks itself whether there is memory to go on with
        start()

    replace_method(machine, "discard_saved_state", say)
    replace_method(machine, "has_saved_state", lambda: not said[0] and true())
    replace_method(machine, "start", go_on)


def _tpm_made_anew(machine: Machine) -> None:
    """Each start makes a TPM that nobody used before."""
    driver: Any = machine
    start = machine.start

    def start_anew() -> None:
        if machine.state() is MachineState.STOPPED:
            shutil.rmtree(driver.directory.here / _qemu_tpm.STATE, ignore_errors=True)
        start()

    replace_method(machine, "start", start_anew)


def _starts_from_disk(machine: Machine) -> None:
    def start(directory: Path, file: str) -> None:
        del directory, file
        machine.start()

    replace_method(machine, "boot_from_network", start)


DEFECTS = (
    Defect(
        name="migration-is-a-word",
        what="The hypervisor says that it moved the machine, and it is where it was.",
        breaks=("lifecycle.live_migration",),
        says="is still at",
        machine=answers("migrate_live", Migration(seconds=2.0, downtime_ms=200.0, transferred_bytes=64 << 20)),
    ),
    Defect(
        name="migration-boots",
        what="The machine is moved by cutting its power here and starting it there.",
        breaks=("lifecycle.live_migration",),
        says="booted instead of going on",
        machine=_moves_by_booting,
    ),
    Defect(
        name="sleep-is-power-off",
        what="Put to sleep, the machine is switched off, and boots when it is woken.",
        breaks=("lifecycle.save_restore",),
        says="booted instead of going on",
        machine=_sleeps_by_power_off,
    ),
    Defect(
        name="saved-memory-not-discarded",
        what="The hypervisor says that it discarded the saved memory, and starts with it.",
        breaks=("lifecycle.save_restore",),
        says="although its saved state was discarded",
        machine=_discards_nothing,
    ),
    Defect(
        name="freeze-is-a-word",
        what="The agent says that the file systems are at rest, and the guest writes on.",
        breaks=("lifecycle.snapshot_quiesced",),
        says="frozen, and the guest wrote",
        machine=together(answers("freeze", 1), answers("thaw", 1)),
    ),
    Defect(
        name="input-lost",
        what="What is typed on the console does not reach the guest.",
        breaks=("device.serial_console",),
        says="typed|reach",
        machine=answers("type_on_console", None),
    ),
    Defect(
        name="network-boot-ignored",
        what="Told to start from the network, the machine starts from its disk.",
        breaks=("firmware.pxe",),
        says="fetched program",
        machine=_starts_from_disk,
    ),
    Defect(
        name="card-on-another-network",
        what="A card that should share a network with another machine is alone on one.",
        breaks=("net.vlan", "net.jumbo"),
        says="answer|reach|arrive|network",
        machine=instead(
            "attach_shared_nic", lambda true: lambda name, mac, network: true(name, mac, f"{network}-{mac[-2:]}")
        ),
    ),
    Defect(
        name="unsigned-program-runs",
        what="A boot program that no key signed is started like any other.",
        breaks=("firmware.secure_boot",),
        says="refuses the boot program",
        cell="qemu/jeos/q35-trusted",
        boot_timeout_s=300,  # firmware that measures and checks what it starts is slow under emulation
        machine=lambda machine: replace_method(machine, "boot_unsigned", machine.start),
    ),
    Defect(
        name="tpm-of-another-version",
        what="The hypervisor says that the machine has a TPM of version 1.2.",
        breaks=("firmware.vtpm",),
        says="1.2",
        cell="qemu/jeos/q35-trusted",
        boot_timeout_s=300,  # firmware that measures and checks what it starts is slow under emulation
        machine=answers("tpm_version", "1.2"),
    ),
    Defect(
        name="tpm-forgets",
        what="Whenever the machine is switched on, it has another TPM, in which nothing is stored.",
        breaks=("firmware.vtpm",),
        says="TPM refuses command 0x14e",  # TPM2_NV_Read
        cell="qemu/jeos/q35-trusted",
        boot_timeout_s=300,
        machine=_tpm_made_anew,
    ),
)
