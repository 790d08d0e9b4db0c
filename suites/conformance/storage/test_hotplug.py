"""storage.hotplug: disks come and go while the guest runs."""

from __future__ import annotations

from lab.suite import Capability, Guest, HotplugsDisks, Machine, check, linux, waiting, who_can

NAME = "hot-disk"
SIZE_MIB = 24
WRITTEN_MIB = 4
WITHIN_S = 30.0


@check("storage.hotplug", needs=(Capability.DISK_HOTPLUG,), cold=True, timeout_s=240, defect=True)
def test_disk_comes_works_and_goes(guest: Guest, machine: Machine) -> None:
    """Catches disks that never appear, have another size, lose data, do not go, or disturb the others."""
    plugs = who_can(machine, HotplugsDisks)
    linux.settle(guest)
    before = {disk.name for disk in linux.disks(guest)}
    errors = _errors(guest)
    plugs.attach_disk(NAME, SIZE_MIB)
    try:
        waiting.until(lambda: _new(guest, before), what="a new disk in the guest", timeout_s=WITHIN_S)
        (disk,) = _new(guest, before)
        assert disk.size_bytes == SIZE_MIB << 20, f"attached {SIZE_MIB} MiB, {disk.name} has {disk.size_bytes} bytes"
        differs = linux.write_and_read_back(guest, disk, mib=WRITTEN_MIB, at_mib=SIZE_MIB - WRITTEN_MIB)
        assert not differs, f"what was read from {disk.name} is not what was written: {differs}"
    finally:
        plugs.detach_disk(NAME)
    waiting.until(lambda: not _new(guest, before), what="the disk to go away", timeout_s=WITHIN_S)
    assert {disk.name for disk in linux.disks(guest)} == before, "the disks are not those of before"
    assert _errors(guest) == errors, f"the kernel complains: {_errors(guest)[len(errors) :]}"


def _new(guest: Guest, before: set[str]) -> list[linux.Disk]:
    return [disk for disk in linux.disks(guest) if disk.name not in before]


def _errors(guest: Guest) -> list[str]:
    return [line.text for line in linux.kernel_log(guest) if "I/O error" in line.text]
