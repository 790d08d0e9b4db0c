"""device.nic_emulated: the fall-back network card works."""

from __future__ import annotations

import secrets
from pathlib import PurePosixPath

from lab.suite import Guest, Machine, check, linux, not_applicable

DRIVERS = {"e1000e": "e1000e", "e1000": "e1000", "rtl8139": "8139cp"}
TRANSFER = 256 << 10  # bytes


def _driver(machine: Machine) -> str:
    model = machine.spec.profile.nic
    if model not in DRIVERS:
        not_applicable(f"the profile's network card is {model}, not an emulated one")
    return DRIVERS[model]


@check("device.nic_emulated", level="smoke")
def test_driver_took_the_card(guest: Guest, machine: Machine) -> None:
    """Catches a machine with another card than the profile names, or a card without link."""
    driver = _driver(machine)
    nic = linux.first_nic(guest)
    assert driver in nic.drivers, f"{nic.name} is driven by {', '.join(nic.drivers) or 'nothing'}, expected {driver}"
    assert nic.carrier, f"{nic.name} has no link"


@check("device.nic_emulated")
def test_traffic_goes_through_the_card(guest: Guest, machine: Machine) -> None:
    """Catches a card whose traffic goes elsewhere, or is damaged on the way."""
    _driver(machine)
    nic = linux.first_nic(guest)
    content = secrets.token_bytes(TRANSFER)
    path = PurePosixPath("/tmp/lab-traffic")
    received, sent = linux.counters(guest, nic.name)
    guest.write(path, content)
    came_back = guest.read(path)
    received_then, sent_then = linux.counters(guest, nic.name)
    guest.check("rm", str(path))
    assert came_back == content, "the file came back changed"
    assert received_then - received >= TRANSFER, f"sent {TRANSFER} bytes, {nic.name} counts {received_then - received}"
    assert sent_then - sent >= TRANSFER, f"read {TRANSFER} bytes, {nic.name} counts {sent_then - sent}"
