"""What soaks found: failures in guests without defect, why they came, and what was done about them."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One cause of failures."""

    check: str  # the end of its name
    says: str  # a regular expression that the failure's reason contains
    cause: str  # who was at fault, and what was done


FINDINGS = (
    Finding(
        check="",
        says="rm: can't remove '/dev/shm/lab-witness-.*Directory not empty",
        cause="The check was at fault: it removed its witness's folder while the witness wrote there. Mended.",
    ),
    Finding(
        check="test_tags_join_and_part_two_guests",
        says="0 tagged frames came over the wire: nothing was tried",
        cause="The check was at fault: it looked for tags where the receiving card had filtered them. Mended.",
    ),
    Finding(
        check="test_firmware_fetches_a_program_and_starts_it",
        says="the connection to the guest was lost during 'cat /proc/sys/kernel/random/boot_id'",
        cause="The check was at fault: it did not start the machine from its disk again before it asked. Mended.",
    ),
)


LIMITS = (
    (
        "A guest that boots under emulation measures its processor's clock against emulated timers. Where QEMU gets "
        "no processor time in that moment, it measures wrong, and its kernel says `tsc: PIT calibration deviates from "
        "HPET`. Of some forty boots in trials of defects, at 6 to 15 processes for two processors, one measured 119 "
        "MHz instead of 2,000: its clock ran 16 times too fast until the kernel noticed, a self test of its "
        "cryptography ran out of time, modules counted as unsigned, and `time.sync` and `boot.core` failed as the "
        "product's fault."
    ),
    "At such a load a guest with trusted hardware needs more than the 120 s that its boot may take and counts as hung.",
)
"""What was seen on overloaded machines, where the product is not at fault and the records say that it is."""


def cause(check: str, reason: str) -> str:
    """Why that failure came; empty when nobody knows yet."""
    for finding in FINDINGS:
        if check.endswith(finding.check) and re.search(finding.says, reason):
            return finding.cause
    return ""
