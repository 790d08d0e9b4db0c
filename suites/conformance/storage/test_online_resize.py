"""storage.online_resize: a disk grows while the guest runs."""

from __future__ import annotations

from lab.suite import Capability, Guest, Machine, ResizesDisks, check, linux, waiting, who_can

GROWN_MIB = 32
KEPT_MIB = 2
WITHIN_S = 30.0


@check("storage.online_resize", needs=(Capability.DISK_RESIZE,), cold=True, timeout_s=240, defect=True)
def test_disk_grows_and_keeps_its_content(guest: Guest, machine: Machine) -> None:
    """Catches a size that the guest never sees, lost content, and new space that cannot be written."""
    disk = linux.data_disk(guest, machine)
    differs = linux.write_and_read_back(guest, disk, mib=KEPT_MIB)
    assert not differs, f"what was read from {disk.name} is not what was written: {differs}"
    kept = linux.digest(guest, disk, mib=KEPT_MIB)
    wanted = disk.size_bytes + (GROWN_MIB << 20)
    who_can(machine, ResizesDisks).resize_data_disk(wanted >> 20)
    waiting.until(
        lambda: _size(guest, disk.name) == wanted, what=f"{disk.name} to have {wanted} bytes", timeout_s=WITHIN_S
    )
    read = linux.digest(guest, disk, mib=KEPT_MIB)
    assert read == kept, f"the content of {disk.name} changed when it grew"
    differs = linux.write_and_read_back(guest, disk, mib=KEPT_MIB, at_mib=(wanted >> 20) - KEPT_MIB)
    assert not differs, f"the new end of {disk.name} does not keep what is written: {differs}"


def _size(guest: Guest, name: str) -> int:
    # SCSI and NVMe tell of a new size when they are asked; virtio tells by itself.
    script = f"""
    cd /sys/block/{name}
    for file in device/rescan device/rescan_controller; do [ ! -w $file ] || echo 1 >$file; done
    cat size
    """
    return int(linux.sh(guest, script)) * 512
