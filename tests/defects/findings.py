"""What soaks found: failures in guests without defect, why they came, and what was done about them."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One cause of failures."""

    revision: str  # of the rounds that were looked into; a later failure that reads alike may have another cause
    check: str  # the end of its name
    says: str  # a regular expression that the failure's reason contains
    cause: str  # who was at fault, and what was done


FINDINGS = (
    Finding(
        revision="8a16c7d3760e",
        check="",
        says="rm: can't remove '/dev/shm/lab-witness-.*Directory not empty",
        cause="The check was at fault: it removed its witness's folder while the witness wrote there. Mended.",
    ),
    Finding(
        revision="8a16c7d3760e",
        check="test_tags_join_and_part_two_guests",
        says="0 tagged frames came over the wire: nothing was tried",
        cause="The check was at fault: it looked for tags where the receiving card had filtered them. Mended.",
    ),
    Finding(
        revision="8a16c7d3760e",
        check="test_firmware_fetches_a_program_and_starts_it",
        says="the connection to the guest was lost during 'cat /proc/sys/kernel/random/boot_id'",
        cause="The check was at fault: it did not start the machine from its disk again before it asked. Mended.",
    ),
    Finding(
        revision="4ac23401db3a",
        check="test_hypervisor_says_running",
        says=r"did not come up within 300 s: user space is up.*(default rout|D-Bus System Me)",
        cause="The lab's machine was overloaded: the console shows a guest on its way, at a fifth of a processor.",
    ),
    Finding(
        revision="63a6f4d27d12",
        check="test_user_space_started_completely",
        says="crashed services: setup-dns$",
        cause="The image was at fault: a service that copies a file and ends was declared as a daemon. Left out since.",
    ),
)


LIMITS = (
    (
        "A guest that boots under emulation measures its processor's clock against emulated timers. Where QEMU gets "
        "no processor time in that moment, it measures wrong, and its kernel says `tsc: PIT calibration deviates from "
        "HPET`. Of some sixty boots in trials of defects, at 6 to 15 processes for two processors, one measured 119 "
        "MHz instead of 2,000: its clock ran 16 times too fast until the kernel noticed, a self test of its "
        "cryptography ran out of time, modules counted as unsigned, and `time.sync` and `boot.core` failed as the "
        "product's fault."
    ),
    (
        "A PV guest on a Xen host that the lab makes begins its clock late where the host's emulator gets too little "
        "processor time: of 26 boots at 3 to 12 processes for two processors, ten were 5 to 25 s behind, the rest 0.4 "
        "to 5, while the clock of the dom0 beside them was right within a second; from then on they kept time. "
        "Until its clocksource takes over its kernel counts ticks, and was not run for most of them: it notes "
        "itself how much it lost (`sched_clock: Marking stable`). `time.sync` failed as the product's fault, and is "
        "blocked since."
    ),
    "At such a load guests need more than the 120 to 300 s that their boots may take, and count as hung.",
)
"""What was seen on overloaded machines, where the product is not at fault and the records say that it is."""


def cause(revision: str, check: str, reason: str) -> str:
    """Why that failure came; empty when nobody knows yet."""
    for finding in FINDINGS:
        if finding.revision == revision and check.endswith(finding.check) and re.search(finding.says, reason):
            return finding.cause
    return ""
