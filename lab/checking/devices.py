"""What several features ask of a disk or a network card alike; each is called with the feature's table of drivers.

A table says which driver of the guest belongs to which device model of a profile; a profile with another model cannot
have the feature. Every function fails by `AssertionError` with what it saw.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import PurePosixPath

from lab.checking import linux
from lab.checking.outcomes import NotApplicable
from lab.contracts import Machine
from lab.guests.guest import Guest

WRITTEN_MIB = 2
TRANSFER_BYTES = 256 << 10
NETWORK_MTU = 1500  # of an Ethernet that nobody changed (RFC 894); the lab's own networks are such

_TRAFFIC = PurePosixPath("/tmp/lab-traffic")


def disk_driver(machine: Machine, drivers: Mapping[str, str]) -> str:
    """The driver that the profile's disks must have. Raises `NotApplicable` for a model that is not in the table."""
    return _driver("disk", machine.spec.profile.disk, drivers)


def nic_driver(machine: Machine, drivers: Mapping[str, str]) -> str:
    """The driver that the profile's network card must have. Raises `NotApplicable` for a model not in the table."""
    return _driver("network card", machine.spec.profile.nic, drivers)


def _driver(device: str, model: str, drivers: Mapping[str, str]) -> str:
    if model not in drivers:
        raise NotApplicable(f"the profile's {device} is {model}; this is about {', '.join(drivers)}")
    return drivers[model]


def assert_root_is_on_its_driver(guest: Guest, machine: Machine, drivers: Mapping[str, str]) -> None:
    """`/` lies on a disk that the table's driver drives."""
    driver = disk_driver(machine, drivers)
    root = linux.root_disk(guest)
    assert driver in root.drivers, (
        f"/ is on {root.name}, driven by {', '.join(root.drivers) or 'nothing'}, not {driver}"
    )


def assert_disk_has_its_size(guest: Guest, machine: Machine, drivers: Mapping[str, str]) -> None:
    """The empty disk is there, once, and has as many bytes as it was made with."""
    disk_driver(machine, drivers)
    disk = linux.data_disk(guest, machine)
    asked = machine.spec.data_disk_mib << 20
    assert disk.size_bytes == asked, f"{disk.name} was made with {asked} bytes and has {disk.size_bytes}"


def assert_disk_keeps_what_is_written(guest: Guest, machine: Machine, drivers: Mapping[str, str]) -> None:
    """What is written at the beginning and at the end of the empty disk is read back, past the page cache."""
    driver = disk_driver(machine, drivers)
    disk = linux.data_disk(guest, machine)
    assert driver in disk.drivers, f"{disk.name} is driven by {', '.join(disk.drivers) or 'nothing'}, not {driver}"
    end = (disk.size_bytes >> 20) - WRITTEN_MIB
    for place in (0, end):
        differs = linux.write_and_read_back(guest, disk, mib=WRITTEN_MIB, at_mib=place)
        assert not differs, f"what was read at {place} MiB of {disk.name} is not what was written: {differs}"


def assert_driver_took_the_card(guest: Guest, machine: Machine, drivers: Mapping[str, str]) -> None:
    """The card of the default route is driven by the table's driver, has a link and its network's packet size."""
    driver = nic_driver(machine, drivers)
    nic = linux.first_nic(guest)
    assert driver in nic.drivers, f"{nic.name} is driven by {', '.join(nic.drivers) or 'nothing'}, expected {driver}"
    assert nic.carrier, f"{nic.name} has no link"
    assert nic.mtu == NETWORK_MTU, f"{nic.name} is set to packets of {nic.mtu} bytes, its network has {NETWORK_MTU}"


def assert_traffic_goes_through_the_card(guest: Guest, machine: Machine, drivers: Mapping[str, str]) -> None:
    """A file goes to the guest and back unchanged, and the card's own counters saw it both ways."""
    nic_driver(machine, drivers)
    nic = linux.first_nic(guest)
    content = secrets.token_bytes(TRANSFER_BYTES)
    received, sent = linux.counters(guest, nic.name)
    guest.write(_TRAFFIC, content)
    came_back = guest.read(_TRAFFIC)
    received_then, sent_then = linux.counters(guest, nic.name)
    guest.check("rm", str(_TRAFFIC))
    assert came_back == content, "the file came back changed"
    got, gave = received_then - received, sent_then - sent
    assert got >= TRANSFER_BYTES, f"sent {TRANSFER_BYTES} bytes, {nic.name} counts {got}"
    assert gave >= TRANSFER_BYTES, f"read {TRANSFER_BYTES} bytes, {nic.name} counts {gave}"
