"""lifecycle.shutdown: the host asks, the guest shuts down in good order."""

from __future__ import annotations

import time

from lab.suite import Guest, Machine, MachineState, Measurements, Reconnect, check, linux

OFF_WITHIN_S = 120.0
BACK_WITHIN_S = 240.0


@check("lifecycle.shutdown", cold=True, timeout_s=500, defect=True)
def test_host_asks_and_guest_shuts_down_clean(
    guest: Guest, machine: Machine, reconnect: Reconnect, measured: Measurements
) -> None:
    """Catches a guest that ignores the power button, loses data, or is cut off before its disks are clean."""
    linux.settle(guest)
    linux.sh(guest, "echo before >/root/lab-shutdown")
    boot = guest.boot_id
    start = time.monotonic()
    try:
        machine.stop(timeout_s=OFF_WITHIN_S)
        measured.add("shutdown", time.monotonic() - start, "s", better="lower")
        assert machine.state() is MachineState.STOPPED, f"shut down, and the hypervisor says {machine.state()}"
    finally:
        # Whatever happened, the checks after this one need a guest that runs.
        machine.start()
        reconnect(BACK_WITHIN_S)
    assert guest.boot_id != boot, "the guest is still in the same boot: it was never off"
    assert linux.sh(guest, "cat /root/lab-shutdown 2>/dev/null; rm -f /root/lab-shutdown") == "before", (
        "the last write is lost"
    )
    torn = [line.text for line in linux.kernel_log(guest) if "recover" in line.text and "EXT4-fs" in line.text]
    assert not torn, f"the root file system was not unmounted: {torn[0]}"
