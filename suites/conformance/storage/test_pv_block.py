"""storage.pv_block: the paravirtual disk is bound to its driver and keeps what is written."""

from __future__ import annotations

from lab.suite import Guest, Machine, check, devices

DRIVERS = {
    "virtio": "virtio_blk",
    "ubd": "uml-blkdev",
    "pvscsi": "vmw_pvscsi",
    "xen": "vbd",  # of the module xen_blkfront; a driver of xenbus is named after the devices that it takes
    "hyperv": "hv_storvsc",
}


@check("storage.pv_block", level="smoke")
def test_root_is_on_the_driver(guest: Guest, machine: Machine) -> None:
    """Catches a machine with another disk than the profile names, and a root that fell back to emulation."""
    devices.assert_root_is_on_its_driver(guest, machine, DRIVERS)


@check("storage.pv_block", defect=True)
def test_disk_has_the_size_asked_for(guest: Guest, machine: Machine) -> None:
    """Catches disks that are missing, swapped, or smaller than they were made."""
    devices.assert_disk_has_its_size(guest, machine, DRIVERS)


@check("storage.pv_block", defect=True)
def test_disk_keeps_what_is_written(guest: Guest, machine: Machine) -> None:
    """Catches writes that are lost, torn or end up elsewhere, at the beginning and at the end of the disk."""
    devices.assert_disk_keeps_what_is_written(guest, machine, DRIVERS)
