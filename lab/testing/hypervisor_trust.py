"""The contract suite for what a guest's trust begins with: its TPM, signatures, and where it boots from."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from lab import waiting
from lab.checking.tpm import DEBUG_REGISTER, Tpm
from lab.contracts import (
    BootsFromNetwork,
    Capability,
    Channel,
    CommandResult,
    EmulatesTpm,
    Firmware,
    Hypervisor,
    Machine,
    MachineState,
    SecureBoots,
    Snapshots,
)
from lab.errors import HypervisorRefused
from lab.guests.guest import Guest
from lab.provisioning import netboot
from lab.testing.contract import Booted, capable, proves

_FIRMWARE_S = 240.0  # for an emulated firmware to come to its end
_TOKEN_BYTES = 16
# edk2's BdsDxe, "failed to load Boot0001 ...: Access Denied"; others say it in words of their own.
_REFUSED = re.compile(rb"(?i)access denied|security violation|verification failed|not (signed|trusted)")
_SECURE_BOOT = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


class _Shell:
    """As much of a guest as `Tpm` needs."""

    def __init__(self, booted: Booted) -> None:
        self._booted = booted

    def run(self, *argv: str, stdin: bytes = b"") -> CommandResult:
        return self._booted.channel.run(argv, stdin=stdin)


def _tpm(booted: Booted) -> Tpm:
    booted.sh("modprobe -a tpm_crb tpm_tis 2>/dev/null || true")
    return Tpm(cast(Guest, _Shell(booted)), "/dev/tpm0")


class TrustContract:
    """Behaviour tests of what is there before the guest is."""

    # -----------------------------------------------------------------------------------------------------
    # TPM

    @proves(Capability.TPM)
    def test_the_guest_has_the_tpm_of_its_profile_and_no_other(self, hypervisor: Hypervisor, booted: Booted) -> None:
        machine: EmulatesTpm = capable(hypervisor, booted.machine, Capability.TPM)
        wanted = booted.machine.spec.profile.tpm
        tpm = _tpm(booted)

        assert machine.tpm_version() == ("2.0" if wanted else "")
        found = booted.sh("cat /sys/class/tpm/tpm0/tpm_version_major 2>/dev/null || echo none")
        assert found == ("2" if wanted else "none")
        if wanted:
            assert tpm.random(16) != tpm.random(16)

    @proves(Capability.TPM)
    def test_a_tpm_keeps_what_was_stored_and_forgets_what_was_measured_over_a_power_cycle(
        self, hypervisor: Hypervisor, booted: Booted
    ) -> None:
        capable(hypervisor, booted.machine, Capability.TPM)
        if not booted.machine.spec.profile.tpm:
            pytest.skip("the profile asks for no TPM")
        token, tpm = secrets.token_bytes(_TOKEN_BYTES), _tpm(booted)
        tpm.store(token)
        try:
            begun = tpm.register(DEBUG_REGISTER)
            tpm.extend(DEBUG_REGISTER, secrets.token_bytes(32))
            assert tpm.register(DEBUG_REGISTER) != begun

            booted.machine.stop(force=True)
            booted.machine.start()
            booted.reconnect()

            tpm = _tpm(booted)
            assert tpm.stored(_TOKEN_BYTES) == token
            assert tpm.register(DEBUG_REGISTER) == begun
        finally:
            tpm.forget()

    @proves(Capability.TPM)
    def test_a_restored_machine_has_the_tpm_that_it_had(self, hypervisor: Hypervisor, booted: Booted) -> None:
        capable(hypervisor, booted.machine, Capability.TPM)
        keeper: Snapshots = capable(hypervisor, booted.machine, Capability.SNAPSHOTS)
        if not booted.machine.spec.profile.tpm or not keeper.snapshots_hold_memory():
            pytest.skip("there is no TPM, or no memory in a snapshot")
        tpm = _tpm(booted)
        tpm.extend(DEBUG_REGISTER, secrets.token_bytes(32))
        early = tpm.register(DEBUG_REGISTER)
        keeper.snapshot("contract-tpm")
        try:
            tpm.extend(DEBUG_REGISTER, secrets.token_bytes(32))

            keeper.restore("contract-tpm")
            booted.reconnect()

            assert _tpm(booted).register(DEBUG_REGISTER) == early
        finally:
            keeper.delete_snapshot("contract-tpm")

    # -----------------------------------------------------------------------------------------------------
    # Signatures

    @proves(Capability.SECURE_BOOT)
    def test_firmware_and_guest_agree_on_secure_boot_with_the_profile(
        self, hypervisor: Hypervisor, booted: Booted
    ) -> None:
        machine: SecureBoots = capable(hypervisor, booted.machine, Capability.SECURE_BOOT)
        profile = booted.machine.spec.profile

        assert machine.secure_boot_enforced() is profile.secure_boot
        if profile.firmware is not Firmware.UEFI:
            assert booted.sh("test -e /sys/firmware/efi || echo none") == "none"
            return
        booted.sh("mount -t efivarfs efivarfs /sys/firmware/efi/efivars 2>/dev/null || true")
        # Four bytes of attributes, then the value (UEFI 2.10, 3.3).
        said = booted.sh(f"test ! -e {_SECURE_BOOT} || dd if={_SECURE_BOOT} bs=1 skip=4 2>/dev/null | od -An -tu1")
        assert (said.strip() == "1") is profile.secure_boot

    @proves(Capability.SECURE_BOOT)
    def test_a_program_that_nobody_signed_runs_only_where_nothing_is_enforced(
        self, hypervisor: Hypervisor, booted: Booted
    ) -> None:
        machine: SecureBoots = capable(hypervisor, booted.machine, Capability.SECURE_BOOT)
        profile = booted.machine.spec.profile
        with pytest.raises(HypervisorRefused):
            machine.boot_unsigned()
        booted.machine.stop(force=True)
        if profile.firmware is not Firmware.UEFI:
            with pytest.raises(HypervisorRefused):
                machine.boot_unsigned()
            return
        before = len(booted.machine.console())

        machine.boot_unsigned()

        if not profile.secure_boot:
            booted.reconnect()
            assert booted.boot_id()
            return
        waiting.until(
            lambda: _REFUSED.search(booted.machine.console()[before:]),
            what="the firmware to refuse the program on the console",
            timeout_s=_FIRMWARE_S,
        )
        waiting.pause(5.0)  # a program that runs in spite of these words would speak now
        assert b"Linux version" not in booted.machine.console()[before:]
        booted.machine.stop(force=True)
        booted.machine.start()
        booted.reconnect()  # that was one start; this one is like all others

    # -----------------------------------------------------------------------------------------------------
    # Network

    @proves(Capability.NETWORK_BOOT)
    def test_a_machine_boots_what_the_network_gives_it_once(
        self, hypervisor: Hypervisor, made: Machine, log_in: Callable[[Machine], Channel], tmp_path: Path
    ) -> None:
        machine: BootsFromNetwork = capable(hypervisor, made, Capability.NETWORK_BOOT)
        token = secrets.token_hex(8)
        file = netboot.prepare(made.spec.image, made.spec.profile, tmp_path, arguments=f"lab.marker={token}")

        machine.boot_from_network(tmp_path, file)

        channel = log_in(made)
        try:
            assert f"lab.marker={token}" in channel.run(["cat", "/proc/cmdline"]).out.split()
            with pytest.raises(HypervisorRefused):
                machine.boot_from_network(tmp_path, file)
        finally:
            channel.close()
        made.stop(force=True)
        made.start()
        channel = log_in(made)
        try:
            assert token not in channel.run(["cat", "/proc/cmdline"]).out
        finally:
            channel.close()

    @proves(Capability.NETWORK_BOOT)
    def test_only_a_file_of_the_folder_is_booted(self, hypervisor: Hypervisor, made: Machine, tmp_path: Path) -> None:
        machine: BootsFromNetwork = capable(hypervisor, made, Capability.NETWORK_BOOT)
        (tmp_path.parent / "outside").write_text("x")

        for file in ("../outside", "/etc/hostname", "is-not-there", "", "x" * 200):
            with pytest.raises(HypervisorRefused):
                machine.boot_from_network(tmp_path, file)
            assert made.state() is MachineState.STOPPED
