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


def cause(check: str, reason: str) -> str:
    """Why that failure came; empty when nobody knows yet."""
    for finding in FINDINGS:
        if check.endswith(finding.check) and re.search(finding.says, reason):
            return finding.cause
    return ""
