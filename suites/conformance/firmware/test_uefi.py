"""firmware.uefi: the guest was started by UEFI and can use its runtime services."""

from __future__ import annotations

from lab.suite import Firmware, Guest, Machine, check, linux, not_applicable

# The kernel lets nobody remove variables but those that it knows to be harmless, and all of the vendor under which it
# keeps its own crash dumps (fs/efivarfs/vars.c, variable_validate); no tool reads this name there.
VARIABLE = "InteropLab-cfc8fc79-be2e-4ddc-97f0-9f98bfe298a0"
MOUNT = "/run/lab-efivars"


def _only_uefi(machine: Machine) -> None:
    if machine.spec.profile.firmware is not Firmware.UEFI:
        not_applicable(f"the profile asks for firmware {machine.spec.profile.firmware}")


@check("firmware.uefi", level="smoke", defect=True)
def test_uefi_started_the_guest(guest: Guest, machine: Machine) -> None:
    """Catches a machine that was asked for UEFI and fell back to legacy firmware, or to the wrong word size."""
    _only_uefi(machine)
    size = guest.run("cat", "/sys/firmware/efi/fw_platform_size")
    assert size.status == 0, "there is no /sys/firmware/efi: legacy firmware started the guest"
    assert size.out == "64", f"the firmware is {size.out} bit"


@check("firmware.uefi", defect=True)
def test_variables_can_be_written(guest: Guest, machine: Machine) -> None:
    """Catches a variable store that is missing, read-only or forgets: boot entries and secure boot keys live there."""
    _only_uefi(machine)
    # One write, as efivarfs wants it. The first four bytes are the attributes: non-volatile, boot and runtime access;
    # others cannot be made once the system runs (UEFI 2.10, section 8.2, SetVariable).
    script = f"""
    set -e
    mkdir -p {MOUNT}
    mount -t efivarfs none {MOUNT}
    trap 'umount {MOUNT}; rmdir {MOUNT}' EXIT
    ls {MOUNT} | wc -l
    printf '\\007\\000\\000\\000lab' >{MOUNT}.value
    dd if={MOUNT}.value of={MOUNT}/{VARIABLE} 2>/dev/null
    tail -c 3 {MOUNT}/{VARIABLE}
    echo
    rm {MOUNT}/{VARIABLE} {MOUNT}.value
    """
    count, value = linux.sh(guest, script).splitlines()[:2]
    assert int(count) > 0, "the firmware has no variables at all"
    assert value == "lab", f"wrote 'lab' into a variable and read {value!r}"
