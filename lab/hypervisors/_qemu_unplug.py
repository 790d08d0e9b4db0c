"""Taking a device out of a running QEMU machine: the guest is asked, and its answer is waited for.

The device is out when QEMU has no object of it any more; DEVICE_DELETED does not come for processors (QEMU 7.2).
That the guest keeps it is told by DEVICE_UNPLUG_GUEST_ERROR (PCI Express, QEMU 6.2), or by what its ACPI code says
of an ejection with _OST (ACPI 6.5, 6.3.5), which comes as ACPI_DEVICE_OST.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lab.errors import HypervisorRefused
from lab.hypervisors._qemu_monitor import Monitor

LIMIT_S = 60.0
_EJECTIONS = (0x3, 0x103)  # _OST, source: an ejection asked for by firmware (3) or by the guest itself
_ON_ITS_WAY = (0x0, 0x84)  # _OST, status: done; in progress
_REASONS = {
    0x1: "it gives no reason",
    0x80: "it does not support that",
    0x81: "a program uses it",
    0x82: "it is busy",
    0x83: "something depends on it",
}


def take_out(monitor: Monitor, device: str, what: str) -> None:
    """Returns when the guest let go of it. Raises `HypervisorRefused` when it refuses, `WaitedTooLong`."""
    monitor.news()  # what is older is about something else
    monitor.command("device_del", {"id": device})

    def gone() -> bool:
        if all(entry["name"] != device for entry in monitor.command("qom-list", {"path": "/machine/peripheral"})):
            return True
        for event in monitor.news():
            reason = _kept(event["event"], event.get("data", {}), device)
            if reason is not None:
                raise HypervisorRefused(f"the guest keeps {what}: {reason}")
        return False

    monitor.until(gone, what=f"the guest to let go of {what}", timeout_s=LIMIT_S)


def _kept(name: str, data: Mapping[str, Any], device: str) -> str | None:
    if name == "DEVICE_UNPLUG_GUEST_ERROR" and data.get("device") == device:
        return "it reports an error"
    info = data.get("info", {})
    if name != "ACPI_DEVICE_OST" or info.get("device") != device or info["source"] not in _EJECTIONS:
        return None
    status = info["status"]
    return None if status in _ON_ITS_WAY else _REASONS.get(status, f"status {status:#x}")
