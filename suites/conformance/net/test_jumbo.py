"""net.jumbo: the card takes frames larger than 1,500 bytes."""

from __future__ import annotations

import secrets
from pathlib import PurePosixPath

from lab.suite import Guest, check, linux, unsupported

JUMBO = 9000
TRANSFER = 512 << 10  # bytes


@check("net.jumbo")
def test_card_takes_large_frames(guest: Guest) -> None:
    """Catches a driver that refuses the size, forgets it, or breaks the connection when it is set."""
    nic = linux.first_nic(guest)
    result = guest.run("ip", "link", "set", nic.name, "mtu", str(JUMBO))
    if result.status != 0:
        if guest.run("ip", "link", "set", nic.name, "mtu", str(nic.mtu + 1)).status != 0:
            unsupported(f"{nic.name} takes no frames larger than {nic.mtu} bytes")
        guest.check("ip", "link", "set", nic.name, "mtu", str(nic.mtu))
        raise AssertionError(f"{nic.name} refuses an MTU of {JUMBO}: {result.err or result.out}")
    try:
        assert linux.first_nic(guest).mtu == JUMBO, (
            f"set an MTU of {JUMBO}, {nic.name} has {linux.first_nic(guest).mtu}"
        )
        content = secrets.token_bytes(TRANSFER)
        path = PurePosixPath("/tmp/lab-jumbo")
        guest.write(path, content)
        assert guest.read(path) == content, "a file came back changed while large frames were allowed"
    finally:
        guest.check("ip", "link", "set", nic.name, "mtu", str(nic.mtu))
        guest.run("rm", "-f", "/tmp/lab-jumbo")
