"""TPM, signatures and UEFI of QEMU machines with real guests: the part of the contract that begins before them.

What holds for all hardware, and the boot from a network, is tried on the machine of `test_qemu.py`.
"""

from __future__ import annotations

import pytest

from lab.contracts import Firmware, Profile
from lab.testing.hypervisor import RequiredContract
from lab.testing.hypervisor_trust import TrustContract
from tests.hypervisors.test_qemu import QemuFixtures

pytestmark = [pytest.mark.minutes, pytest.mark.timeout(900)]


class TrustFixtures(QemuFixtures):
    """The machines of the contract, without its tests."""

    boot_timeout_s = 400.0  # the firmware hashes all that it starts, emulated
    locals().update(
        {name: found for name, found in vars(RequiredContract).items() if not name.startswith(("_", "test_"))}
    )


class TestSecureQemu(TrustFixtures):
    """A TPM, and firmware that starts what Microsoft's and Debian's keys signed."""

    hardware = Profile("secure", Firmware.UEFI, "q35", "virtio", "virtio", 1, 384, tpm=True, secure_boot=True)

    test_tpm_is_there = TrustContract.test_the_guest_has_the_tpm_of_its_profile_and_no_other
    test_tpm_and_power = TrustContract.test_a_tpm_keeps_what_was_stored_and_forgets_what_was_measured_over_a_power_cycle
    test_tpm_and_snapshots = TrustContract.test_a_restored_machine_has_the_tpm_that_it_had
    test_signatures_are_checked = TrustContract.test_firmware_and_guest_agree_on_secure_boot_with_the_profile
    test_unsigned = TrustContract.test_a_program_that_nobody_signed_runs_only_where_nothing_is_enforced


class TestOpenQemu(TrustFixtures):
    """The same firmware without keys: the program that was refused there runs here."""

    hardware = Profile("open", Firmware.UEFI, "q35", "virtio", "virtio", 1, 384)

    test_no_tpm_is_there = TrustContract.test_the_guest_has_the_tpm_of_its_profile_and_no_other
    test_nothing_is_checked = TrustContract.test_firmware_and_guest_agree_on_secure_boot_with_the_profile
    test_unsigned = TrustContract.test_a_program_that_nobody_signed_runs_only_where_nothing_is_enforced
