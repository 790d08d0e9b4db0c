"""firmware.bios: the guest was started by legacy firmware."""

from __future__ import annotations

from lab.suite import Firmware, Guest, Machine, check, linux, not_applicable


@check("firmware.bios", level="smoke", defect=True)
def test_legacy_firmware_started_the_guest(guest: Guest, machine: Machine) -> None:
    """Catches a machine that was asked for BIOS and got UEFI, and firmware without a memory map."""
    if machine.spec.profile.firmware is not Firmware.BIOS:
        not_applicable(f"the profile asks for firmware {machine.spec.profile.firmware}")
    assert guest.run("test", "-e", "/sys/firmware/efi").status != 0, (
        "/sys/firmware/efi is there: UEFI started the guest"
    )
    kinds = linux.sh(guest, "cat /sys/firmware/memmap/*/type").splitlines()
    assert "System RAM" in kinds, f"the firmware's memory map names no memory: {sorted(set(kinds))}"
