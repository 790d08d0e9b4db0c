"""storage.emulated: the fall-back disk controller works."""

from __future__ import annotations

from lab.suite import Guest, Machine, check, linux, not_applicable

DRIVERS = {"sata": "ahci", "ide": "ata_piix", "lsi": "mptspi"}
WRITTEN_MIB = 2


def _driver(machine: Machine) -> str:
    model = machine.spec.profile.disk
    if model not in DRIVERS:
        not_applicable(f"the profile's disk is {model}, not an emulated one")
    return DRIVERS[model]


@check("storage.emulated", level="smoke")
def test_root_is_on_the_driver(guest: Guest, machine: Machine) -> None:
    """Catches a machine with another disk than the profile names or another driver on it."""
    driver = _driver(machine)
    root = linux.root_disk(guest)
    assert driver in root.drivers, (
        f"/ is on {root.name}, driven by {', '.join(root.drivers) or 'nothing'}, not {driver}"
    )


@check("storage.emulated")
def test_disk_has_the_size_asked_for(guest: Guest, machine: Machine) -> None:
    """Catches disks that are missing, swapped, or smaller than they were made."""
    _driver(machine)
    disk = linux.data_disk(guest, machine)
    asked = machine.spec.data_disk_mib << 20
    assert disk.size_bytes == asked, f"{disk.name} was made with {asked} bytes and has {disk.size_bytes}"


@check("storage.emulated")
def test_disk_keeps_what_is_written(guest: Guest, machine: Machine) -> None:
    """Catches writes that are lost, torn or end up elsewhere, at the beginning and at the end of the disk."""
    _driver(machine)
    disk = linux.data_disk(guest, machine)
    end = (disk.size_bytes >> 20) - WRITTEN_MIB
    for place in (0, end):
        differs = linux.write_and_read_back(guest, disk, mib=WRITTEN_MIB, at_mib=place)
        assert not differs, f"what was read at {place} MiB of {disk.name} is not what was written: {differs}"
