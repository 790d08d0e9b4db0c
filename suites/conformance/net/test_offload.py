"""net.offload_tso_csum: the card computes checksums and cuts segments, and does it right."""

from __future__ import annotations

import secrets
from pathlib import PurePosixPath

from lab.suite import Guest, Measurements, check, linux, unsupported

TRANSFER = 2 << 20  # bytes
LOST_SHARE = 0.01  # of the segments sent; between two ends on one machine none is expected
FEATURES = ("tx-checksumming", "tcp-segmentation-offload")


@check("net.offload_tso_csum", defect=True)
def test_card_offers_offloads(guest: Guest) -> None:
    """Catches offloads that the card offers and the driver leaves off."""
    linux.require_tools(guest, "ethtool")
    nic = linux.first_nic(guest)
    states = {}
    for line in guest.check("ethtool", "-k", nic.name).splitlines():
        name, colon, state = line.strip().partition(":")
        if colon:
            states[name] = state.strip()
    missing = [name for name in FEATURES if name not in states]
    assert not missing, f"ethtool does not speak of {', '.join(missing)}"
    if all(states[name] == "off [fixed]" or _all_fixed(name, states) for name in FEATURES):
        unsupported(f"{nic.name} offers neither checksum nor segmentation offload behind this network")
    off = [f"{name}: {states[name]}" for name in FEATURES if not states[name].startswith("on")]
    assert not off, f"{nic.name} leaves offloads off: {'; '.join(off)}"


def _all_fixed(name: str, states: dict[str, str]) -> bool:
    """Whether every part of a group of features is off for good; the group itself never says so."""
    parts = {
        "tx-checksumming": ("tx-checksum-ipv4", "tx-checksum-ip-generic", "tx-checksum-ipv6"),
        "tcp-segmentation-offload": ("tx-tcp-segmentation", "tx-tcp6-segmentation"),
    }[name]
    return all(states.get(part, "off [fixed]").startswith("off [") for part in parts)


@check("net.offload_tso_csum", defect=True)
def test_bulk_data_needs_no_second_try(guest: Guest, measured: Measurements) -> None:
    """Catches wrong checksums, damaged and lost segments: TCP hides them, its counters do not."""
    content = secrets.token_bytes(TRANSFER)
    path = PurePosixPath("/tmp/lab-bulk")
    before = _tcp(guest)
    guest.write(path, content)
    came_back = guest.read(path)
    after = _tcp(guest)
    guest.check("rm", str(path))
    assert came_back == content, "the file came back changed"
    grown = {name: after[name] - before[name] for name in ("OutSegs", "RetransSegs", "InErrs", "InCsumErrors")}
    assert grown["OutSegs"] > 0, "TCP counts no segment although a file came over it"
    lost = grown["RetransSegs"] / grown["OutSegs"]
    measured.add("retransmitted", lost * 100, "%", better="lower")
    assert grown["InCsumErrors"] == 0, f"{grown['InCsumErrors']} segments came with wrong checksums"
    assert grown["InErrs"] == 0, f"{grown['InErrs']} damaged segments came in"
    assert lost <= LOST_SHARE, f"{grown['RetransSegs']} of {grown['OutSegs']} segments were sent again"


def _tcp(guest: Guest) -> dict[str, int]:
    rows = [line.split() for line in guest.check("cat", "/proc/net/snmp").splitlines() if line.startswith("Tcp:")]
    return dict(zip(rows[0][1:], map(int, rows[1][1:]), strict=True))
