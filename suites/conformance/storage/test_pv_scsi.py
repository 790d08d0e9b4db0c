"""storage.pv_scsi: a paravirtual SCSI controller carries several disks."""

from __future__ import annotations

from lab.suite import Guest, Machine, check, devices, linux

DRIVERS = {"pvscsi": "vmw_pvscsi", "virtio-scsi": "virtio_scsi", "hyperv": "hv_storvsc"}
WRITTEN_MIB = 2


@check("storage.pv_scsi", level="smoke", defect=True)
def test_every_disk_hangs_on_the_controller(guest: Guest, machine: Machine) -> None:
    """Catches units that the controller does not show, and disks that came by another way."""
    driver = devices.disk_driver(machine, DRIVERS)
    found = linux.disks(guest)
    asked = 1 + (machine.spec.seed is not None) + (machine.spec.data_disk_mib > 0)
    assert len(found) == asked, f"the machine has {asked} disks, the guest sees {[disk.name for disk in found]}"
    others = [f"{disk.name} ({', '.join(disk.drivers)})" for disk in found if driver not in disk.drivers]
    assert not others, f"not on {driver}: {'; '.join(others)}"


@check("storage.pv_scsi")
def test_units_do_not_mix(guest: Guest, machine: Machine) -> None:
    """Catches commands that reach another unit: data written to one disk must not be on the others."""
    devices.disk_driver(machine, DRIVERS)
    disk = linux.data_disk(guest, machine)
    root = linux.root_disk(guest)
    differs = linux.write_and_read_back(guest, disk, mib=WRITTEN_MIB)
    assert not differs, f"what was read from {disk.name} is not what was written: {differs}"
    written, there = (linux.digest(guest, each, mib=WRITTEN_MIB) for each in (disk, root))
    assert there != written, f"{root.name} holds what was written to {disk.name}"
