"""storage.nvme: the emulated NVMe disk works."""

from __future__ import annotations

from lab.suite import Guest, Machine, check, devices, linux

DRIVERS = {"nvme": "nvme"}


@check("storage.nvme", level="smoke", defect=True)
def test_root_is_on_the_driver(guest: Guest, machine: Machine) -> None:
    """Catches a machine with another disk than the profile names or another driver on it."""
    devices.assert_root_is_on_its_driver(guest, machine, DRIVERS)


@check("storage.nvme", defect=True)
def test_disk_has_the_size_asked_for(guest: Guest, machine: Machine) -> None:
    """Catches disks that are missing, swapped, or smaller than they were made."""
    devices.assert_disk_has_its_size(guest, machine, DRIVERS)


@check("storage.nvme")
def test_disk_keeps_what_is_written(guest: Guest, machine: Machine) -> None:
    """Catches writes that are lost, torn or end up elsewhere, at the beginning and at the end of the disk."""
    devices.assert_disk_keeps_what_is_written(guest, machine, DRIVERS)


@check("storage.nvme")
def test_controller_is_live(guest: Guest, machine: Machine) -> None:
    """Catches a controller that was reset, died or timed out while the guest went on."""
    devices.disk_driver(machine, DRIVERS)
    states = linux.sh(guest, "cat /sys/class/nvme/nvme*/state").split()
    assert states, "the guest has no NVMe controller"
    assert set(states) == {"live"}, f"the NVMe controllers are {', '.join(states)}"
    complaints = [line.text for line in linux.kernel_log(guest) if "nvme" in line.text and "timeout" in line.text]
    assert not complaints, f"{len(complaints)} timeouts, the first: {complaints[0]}"
