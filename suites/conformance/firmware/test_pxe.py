"""firmware.pxe: the firmware fetches a program over its network card and starts it."""

from __future__ import annotations

import secrets
import tempfile
from pathlib import Path

from lab.suite import (
    BootsFromNetwork,
    Capability,
    Evidence,
    Firmware,
    Guest,
    Machine,
    Reconnect,
    check,
    netboot,
    not_applicable,
    waiting,
    who_can,
)

STARTS_WITHIN_S = 180.0
BACK_WITHIN_S = 300.0
FILES = {Firmware.BIOS: "lab.0", Firmware.UEFI: "lab.efi"}


@check("firmware.pxe", needs=(Capability.NETWORK_BOOT,), cold=True, timeout_s=700, defect=True)
def test_firmware_fetches_a_program_and_starts_it(
    guest: Guest, machine: Machine, reconnect: Reconnect, evidence: Evidence
) -> None:
    """Catches firmware without a driver for the card, without DHCP or TFTP, and what is fetched and not started."""
    profile = machine.spec.profile
    if profile.firmware not in FILES:
        not_applicable(f"the profile asks for firmware {profile.firmware}")
    if profile.secure_boot:
        not_applicable("with secure boot only a signed program may start, and this one is made here")
    network = who_can(machine, BootsFromNetwork)
    machine.stop(timeout_s=120.0)
    marker = f"interop-lab booted from the network {secrets.token_hex(8)}"
    seen = len(machine.console())
    with tempfile.TemporaryDirectory(prefix="lab-netboot-") as folder:
        file = FILES[profile.firmware]
        (Path(folder) / file).write_bytes(netboot.program(profile.firmware, marker))
        network.boot_from_network(Path(folder), file)
        try:
            waiting.until(
                lambda: marker.encode() in machine.console()[seen:],
                what="the fetched program to write its text on the console",
                timeout_s=STARTS_WITHIN_S,
            )
        finally:
            fetched = machine.console()[seen:]
            evidence.attach("network-boot.log", fetched)
            machine.stop(force=True)
            machine.start()
    # Once from the network means that the next start is from the disk again.
    reconnect(BACK_WITHIN_S)
    assert marker.encode() not in machine.console()[seen + len(fetched) :], "the next start was from the network too"
