"""firmware.secure_boot: the firmware starts what is signed, and really refuses what is not."""

from __future__ import annotations

import re

from lab.suite import (
    Capability,
    Firmware,
    Guest,
    Machine,
    MachineState,
    Reconnect,
    SecureBoots,
    check,
    linux,
    not_applicable,
    waiting,
    who_can,
)

# UEFI 2.10, section 3.3: the variables' vendor is EFI_GLOBAL_VARIABLE. The first four bytes are attributes.
GLOBAL = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
MOUNT = "/run/lab-secure-boot"
REFUSED = re.compile(r"access denied|security violation|secure boot violation|verification failed", re.IGNORECASE)
# What follows when a boot program runs: its own words, a boot loader's, a kernel's.
WENT_ON = re.compile(r"shim|GRUB|Linux version|Booting a command list", re.IGNORECASE)
REFUSED_WITHIN_S = 150.0
SILENT_S = 10.0
BACK_WITHIN_S = 300.0


@check("firmware.secure_boot", needs=(Capability.SECURE_BOOT,))
def test_guest_and_host_agree_that_signatures_are_checked(guest: Guest, machine: Machine) -> None:
    """Catches a profile that asks for secure boot and gets firmware without it, without keys, or open to new ones."""
    profile = machine.spec.profile
    if profile.firmware is not Firmware.UEFI:
        not_applicable(f"the profile asks for firmware {profile.firmware}")
    enforced = who_can(machine, SecureBoots).secure_boot_enforced()
    assert enforced == profile.secure_boot, f"asked for secure boot: {profile.secure_boot}, the host says {enforced}"
    told = _variable(guest, "SecureBoot"), _variable(guest, "SetupMode")
    if not profile.secure_boot:
        assert told[0] != "01", "the profile asks for no secure boot, and the firmware says that it is on"
        not_applicable("the profile asks for no secure boot, and there is none")
    assert told[0] == "01", f"the firmware's variable SecureBoot is {told[0] or 'missing'}, not 01"
    assert told[1] == "00", f"the firmware's variable SetupMode is {told[1] or 'missing'}: anybody may enrol a key"
    keys = _variable(guest, "PK")
    assert keys, "the firmware holds no platform key (PK)"


def _variable(guest: Guest, name: str) -> str:
    """The first byte of a variable's value in hexadecimal digits; empty when there is no such variable."""
    script = f"""
    mkdir -p {MOUNT} && mount -t efivarfs none {MOUNT} || exit 1
    trap 'umount {MOUNT}; rmdir {MOUNT}' EXIT
    [ -e {MOUNT}/{name}-{GLOBAL} ] || exit 0
    dd if={MOUNT}/{name}-{GLOBAL} bs=4096 count=1 2>/dev/null | tail -c +5 | head -c 1 | od -An -tx1
    """
    return linux.sh(guest, script).strip()


@check("firmware.secure_boot", needs=(Capability.SECURE_BOOT,), spoils=True, timeout_s=900, defect=True)
def test_what_nobody_signed_does_not_run(guest: Guest, machine: Machine, reconnect: Reconnect) -> None:
    """Catches secure boot that is only said to be on: the same boot program without its signature must not start."""
    if not machine.spec.profile.secure_boot:
        not_applicable("the profile asks for no secure boot")
    boots = who_can(machine, SecureBoots)
    boot = guest.boot_id
    machine.stop(timeout_s=120.0)
    assert machine.state() is MachineState.STOPPED, f"shut down, and the hypervisor says {machine.state()}"
    seen = len(machine.console())
    boots.boot_unsigned()
    try:
        waiting.until(
            lambda: REFUSED.search(_new(machine, seen)),
            what="the firmware to say that it refuses the boot program",
            timeout_s=REFUSED_WITHIN_S,
        )
        waiting.pause(SILENT_S)
        went_on = WENT_ON.search(REFUSED.split(_new(machine, seen), maxsplit=1)[1])
        assert went_on is None, f"the firmware refused the boot program, and then came {went_on and went_on[0]!r}"
    finally:
        machine.stop(force=True)
        machine.start()
    # That it was the missing signature: with it, the same machine starts.
    reconnect(BACK_WITHIN_S)
    assert guest.boot_id != boot, "the guest is still in the boot of before"


def _new(machine: Machine, seen: int) -> str:
    return machine.console()[seen:].decode(errors="replace")
