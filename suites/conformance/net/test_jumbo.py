"""net.jumbo: the card takes frames larger than 1,500 bytes."""

from __future__ import annotations

import secrets
from pathlib import PurePosixPath

from lab.suite import Capability, Guest, check, linux, unsupported, wire

JUMBO = 9000
FRAMES = 5
TRANSFER = 512 << 10  # bytes


@check("net.jumbo", defect=True)
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


@check("net.jumbo", machines=2, needs=(Capability.SHARED_NETWORKS, Capability.NIC_HOTPLUG), timeout_s=400, defect=True)
def test_large_frames_go_from_guest_to_guest_in_one_piece(guest: Guest, peer: Guest) -> None:
    """Catches a network that drops large frames, and guests that cut them although the card takes them whole."""
    with wire.between(guest, peer) as (here, there):
        here.set_up("10.79.1.1/24", mtu=JUMBO)
        there.set_up("10.79.1.2/24", mtu=JUMBO)
        here.wait_for("10.79.1.2")
        packets, size = there.received()
        pieces = here.fragments() + there.fragments()
        whole = here.pings("10.79.1.2", size=JUMBO - wire.HEADERS, count=FRAMES)
        assert whole == FRAMES, f"{whole} of {FRAMES} packets of {JUMBO} bytes came back"
        now_packets, now_size = there.received()
        assert now_size - size >= FRAMES * JUMBO, (
            f"{FRAMES} packets of {JUMBO} bytes came back, the card counts {now_size - size} bytes"
        )
        # Each would be seven ordinary frames; a few of the guests' own (addresses, neighbours) come in between.
        assert now_packets - packets < 3 * FRAMES, f"{FRAMES} packets came as {now_packets - packets} frames"
        cut = here.fragments() + there.fragments() - pieces
        assert cut == 0, f"{cut} packets were cut into pieces although frames of {JUMBO} bytes are allowed"
