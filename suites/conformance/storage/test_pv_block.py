"""storage.pv_block: the paravirtual disk is bound to its driver and keeps what is written."""

from __future__ import annotations

from lab.suite import Guest, Machine, check, linux, not_applicable

DRIVERS = {
    "virtio": "virtio_blk",
    "ubd": "uml-blkdev",
    "pvscsi": "vmw_pvscsi",
    "xen": "xen-blkfront",
    "hyperv": "hv_storvsc",
}
WRITTEN_MIB = 2


def _driver(machine: Machine) -> str:
    model = machine.spec.profile.disk
    if model not in DRIVERS:
        not_applicable(f"the profile's disk is {model}, which is not paravirtual")
    return DRIVERS[model]


@check("storage.pv_block", level="smoke")
def test_root_is_on_the_driver(guest: Guest, machine: Machine) -> None:
    """Catches a machine with another disk than the profile names, and a root that fell back to emulation."""
    driver = _driver(machine)
    root = linux.root_disk(guest)
    assert driver in root.drivers, (
        f"/ is on {root.name}, driven by {', '.join(root.drivers) or 'nothing'}, not {driver}"
    )


@check("storage.pv_block")
def test_disk_has_the_size_asked_for(guest: Guest, machine: Machine) -> None:
    """Catches disks that are missing, swapped, or smaller than they were made."""
    _driver(machine)
    disk = linux.data_disk(guest, machine)
    asked = machine.spec.data_disk_mib << 20
    assert disk.size_bytes == asked, f"{disk.name} was made with {asked} bytes and has {disk.size_bytes}"


@check("storage.pv_block")
def test_disk_keeps_what_is_written(guest: Guest, machine: Machine) -> None:
    """Catches writes that are lost, torn or end up elsewhere, at the beginning and at the end of the disk."""
    _driver(machine)
    disk = linux.data_disk(guest, machine)
    end = (disk.size_bytes >> 20) - WRITTEN_MIB
    for place in (0, end):
        differs = linux.write_and_read_back(guest, disk, mib=WRITTEN_MIB, at_mib=place)
        assert not differs, f"what was read at {place} MiB of {disk.name} is not what was written: {differs}"
