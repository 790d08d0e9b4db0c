"""The program that firmware fetches and starts: a processor that runs it writes the text, the file does not show it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lab import process, waiting
from lab.checking import netboot
from lab.contracts import Firmware

TEXT = "interop-lab was here 0123"


@pytest.mark.parametrize("firmware", [Firmware.BIOS, Firmware.UEFI])
def test_the_text_cannot_be_read_in_the_file(firmware: Firmware) -> None:
    assert TEXT.encode() not in netboot.program(firmware, TEXT)


def test_the_program_for_uefi_is_a_pe_file_for_that_processor() -> None:
    made = netboot.program(Firmware.UEFI, TEXT)

    assert made[:2] == b"MZ"
    assert made[0x40:0x46] == b"PE\0\0\x64\x86"
    assert int.from_bytes(made[0x40 + 24 + 68 : 0x40 + 24 + 70], "little") == 10  # an EFI application
    assert len(made) % 512 == 0


def test_no_firmware_starts_no_program() -> None:
    with pytest.raises(ValueError, match="firmware none starts no programs"):
        netboot.program(Firmware.NONE, TEXT)


def test_a_processor_that_runs_it_writes_the_text(tmp_path: Path) -> None:
    """As a boot sector, which BIOS starts at the same address as what it fetched."""
    disk, said = tmp_path / "disk", tmp_path / "said"
    disk.write_bytes(netboot.program(Firmware.BIOS, TEXT).ljust(510, b"\0") + b"\x55\xaa")
    command = [
        process.find("qemu-system-x86_64", package="qemu-system-x86"),
        "-accel",
        "tcg",
        "-nodefaults",
        "-m",
        "16",
    ]
    command += ["-display", "none", "-serial", f"file:{said}", "-drive", f"file={disk},format=raw,if=ide"]
    machine = subprocess.Popen(command)
    try:
        waiting.until(
            lambda: said.exists() and f"\r\n{TEXT}\r\n".encode() in said.read_bytes(), what="the text", timeout_s=120
        )
    finally:
        machine.kill()
        machine.wait(60)
