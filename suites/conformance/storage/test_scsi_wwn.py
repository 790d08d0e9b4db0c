"""storage.scsi_wwn: disks have names of their own that outlive a reboot."""

from __future__ import annotations

from lab.suite import Guest, Machine, check, linux, not_applicable

BACK_WITHIN_S = 240.0


@check("storage.scsi_wwn", cold=True, timeout_s=400, defect=True)
def test_disk_names_are_unique_and_stay(guest: Guest, machine: Machine) -> None:
    """Catches disks without identity, with the same one, or with a new one after each boot."""
    if machine.spec.profile.disk == "xen":
        not_applicable("Xen's virtual disks have no serial number (xen/include/public/io/blkif.h); the slot names them")
    names = {disk.name: disk.serial for disk in linux.disks(guest)}
    assert all(names.values()), (
        f"disks without a name of their own: {[disk for disk, name in names.items() if not name]}"
    )
    assert len(set(names.values())) == len(names), f"disks share a name: {names}"
    guest.reboot(timeout_s=BACK_WITHIN_S)
    after = {disk.name: disk.serial for disk in linux.disks(guest)}
    assert sorted(after.values()) == sorted(names.values()), f"the names were {names} and are {after}"
