"""device.nic_emulated: the fall-back network card works."""

from __future__ import annotations

from lab.suite import Guest, Machine, check, devices

DRIVERS = {"e1000e": "e1000e", "e1000": "e1000", "rtl8139": "8139cp"}


@check("device.nic_emulated", level="smoke", defect=True)
def test_driver_took_the_card(guest: Guest, machine: Machine) -> None:
    """Catches a machine with another card than the profile names, or a card without link."""
    devices.assert_driver_took_the_card(guest, machine, DRIVERS)


@check("device.nic_emulated")
def test_traffic_goes_through_the_card(guest: Guest, machine: Machine) -> None:
    """Catches a card whose traffic goes elsewhere, or is damaged on the way."""
    devices.assert_traffic_goes_through_the_card(guest, machine, DRIVERS)
