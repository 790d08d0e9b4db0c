"""firmware.vtpm: the guest has a Trusted Platform Module 2.0 of its own, and can use it."""

from __future__ import annotations

import hashlib
import secrets

from lab.suite import Capability, EmulatesTpm, Guest, Machine, Reconnect, check, linux, not_applicable, tpm, who_can

BACK_WITHIN_S = 300.0
KEPT = 16  # bytes
FIRMWARE_REGISTERS = range(8)  # PC Client Platform Firmware Profile: the firmware measures into 0 to 7


def _tpm(guest: Guest, machine: Machine) -> tpm.Tpm:
    if not machine.spec.profile.tpm:
        not_applicable("the profile asks for no TPM")
    told = who_can(machine, EmulatesTpm).tpm_version()
    assert told == "2.0", f"the profile asks for a TPM 2.0, the hypervisor made {told or 'none'}"
    linux.settle(guest)
    return tpm.find(guest)


@check("firmware.vtpm", needs=(Capability.TPM,), defect=True)
def test_guest_and_host_agree_on_the_version(guest: Guest, machine: Machine) -> None:
    """Catches a TPM that the profile asks for and the guest does not see, and one of another version."""
    told = who_can(machine, EmulatesTpm).tpm_version()
    if not machine.spec.profile.tpm:
        there = guest.run("test", "-c", "/dev/tpm0").status == 0
        assert (told, there) == ("", False), f"the profile asks for no TPM; the host says {told!r}, /dev/tpm0: {there}"
        not_applicable("the profile asks for no TPM, and there is none")
    _tpm(guest, machine)
    major = guest.check("cat", "/sys/class/tpm/tpm0/tpm_version_major")
    assert major == "2", f"the guest's TPM is of version {major}"


@check("firmware.vtpm", needs=(Capability.TPM,), defect=True)
def test_random_numbers_come_from_it(guest: Guest, machine: Machine) -> None:
    """Catches a TPM that answers and computes nothing."""
    own = _tpm(guest, machine)
    first, second = own.random(32), own.random(32)
    assert (len(first), len(second)) == (32, 32), f"asked twice for 32 bytes, got {len(first)} and {len(second)}"
    assert first != second, f"the TPM gave the same bytes twice: {first.hex()}"
    assert len(set(first)) > 8, f"the TPM gives no chance: {first.hex()}"


@check("firmware.vtpm", needs=(Capability.TPM,), defect=True)
def test_a_register_takes_measurements(guest: Guest, machine: Machine) -> None:
    """Catches registers that stay as they are, or take what they are given instead of measuring it in."""
    own = _tpm(guest, machine)
    before, measured = own.register(tpm.DEBUG_REGISTER), secrets.token_bytes(32)
    own.extend(tpm.DEBUG_REGISTER, measured)
    expected = hashlib.sha256(before + measured).digest()
    now = own.register(tpm.DEBUG_REGISTER)
    assert now == expected, f"register {tpm.DEBUG_REGISTER} is {now.hex()}, right is {expected.hex()}"


@check("firmware.vtpm", needs=(Capability.TPM,), cold=True, timeout_s=500, defect=True)
def test_it_is_kept_over_a_power_cycle(guest: Guest, machine: Machine, reconnect: Reconnect) -> None:
    """Catches a TPM that forgets what it was to keep, keeps what it was to forget, or lets anything measure first."""
    own = _tpm(guest, machine)
    kept = secrets.token_bytes(KEPT)
    own.store(kept)
    own.extend(tpm.DEBUG_REGISTER, kept.ljust(32, b"\0"))
    boot = [own.register(number) for number in FIRMWARE_REGISTERS]
    assert any(value.strip(b"\0") for value in boot), "the firmware measured nothing into registers 0 to 7"
    machine.stop(timeout_s=120.0)
    machine.start()
    reconnect(BACK_WITHIN_S)
    own = _tpm(guest, machine)
    again = own.stored(KEPT)
    own.forget()
    assert again == kept, f"stored {kept.hex()} in the TPM, after a power cycle it holds {again.hex()}"
    debug = own.register(tpm.DEBUG_REGISTER)
    assert not debug.strip(b"\0"), f"register {tpm.DEBUG_REGISTER} kept its measurements over a power cycle"
    changed = [number for number in FIRMWARE_REGISTERS if own.register(number) != boot[number]]
    assert not changed, f"the same firmware measured other values into registers {changed} at the next start"
