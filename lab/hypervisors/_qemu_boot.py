"""Starts of a QEMU machine that differ from all others: from a network, with a program that nobody signed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath

from lab import process
from lab.contracts import Firmware, MachineState
from lab.errors import HypervisorRefused
from lab.hypervisors import _qemu_boot_disk as boot_disk
from lab.hypervisors import _qemu_firmware as firmware
from lab.hypervisors import _qemu_power as power
from lab.hypervisors import _qemu_variables as variables
from lab.hypervisors._qemu_arguments import FromNetwork
from lab.hypervisors._qemu_store import Directory

_LONGEST_FILE = 127  # BOOTP has 128 bytes for it (RFC 951, "file")


def enforces_signatures(directory: Directory) -> bool:
    """Whether the machine's own variable store, as it is now, makes its firmware refuse what is not signed."""
    profile = directory.read().spec.profile
    if profile.firmware is not Firmware.UEFI or not profile.secure_boot:
        # The other build of OVMF checks nothing, whatever is in its variables.
        return False
    return variables.enforces_secure_boot(variables.read(directory.variables))


def without_signature(directory: Directory) -> None:
    """Start from the machine's boot disk, in which the first program lost its signature. Nothing else is tried.

    The program is shim as its maker built it: where nothing is enforced, it runs and the guest comes up.
    Raises `HypervisorRefused`.
    """
    spec = directory.read().spec
    _require_stopped(directory)
    if spec.profile.firmware is not Firmware.UEFI or not boot_disk.can_be_made(spec):
        raise HypervisorRefused(f"{spec.name} does not boot from a disk of the lab's with UEFI")
    program, disk = directory.path / "unsigned.efi", directory.path / "unsigned.raw"
    try:
        program.write_bytes(boot_disk.without_signature(firmware.SHIM.read_bytes()))
    except OSError as reason:
        raise process.disk_full_or(reason, f"writing {program}") from reason
    power.make_disks(power.boot_commands(directory.read(), disk, program))
    _launch(directory, lambda hardware: replace(hardware, files=replace(hardware.files, boot=disk)))


def from_network(directory: Directory, folder: Path, file: str) -> None:
    """Start from a TFTP server of QEMU's own that gives away `folder`. Raises `HypervisorRefused`."""
    _require_stopped(directory)
    inside = PurePosixPath(file)
    if inside.is_absolute() or ".." in inside.parts or not file.isprintable() or not 0 < len(file) <= _LONGEST_FILE:
        raise HypervisorRefused(f"{file!r} cannot be the name of a file to boot from the network")
    if not (folder / inside).is_file():
        raise HypervisorRefused(f"{folder / inside} is not there to boot from the network")
    served = FromNetwork(folder.resolve(), file)
    _launch(directory, lambda hardware: replace(hardware, network_boot=served))


def _require_stopped(directory: Directory) -> None:
    if power.state(directory) not in (MachineState.STOPPED, MachineState.GONE):
        raise HypervisorRefused(f"{directory.read().spec.name} runs; stop it first")


def _launch(directory: Directory, alter: power.Alter) -> None:
    power.kill(directory)  # a QEMU whose guest powered off and whose keeper was lost
    power.launch(directory, alter=alter)
