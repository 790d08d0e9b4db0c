"""boot.reboot: soft reboots come back."""

from __future__ import annotations

import time

from lab.suite import Guest, Measurements, check, linux

REBOOTS = 2  # more prove more and cost half a minute each under emulation
IDENTITY = "cat /etc/machine-id /proc/sys/kernel/hostname"
BACK_WITHIN_S = 300.0  # several times what Debian needs under emulation on a busy machine


@check("boot.reboot", cold=True, timeout_s=900, defect=True)
def test_reboots_come_back_clean_and_unchanged(guest: Guest, measured: Measurements) -> None:
    """Catches resets that hang or are none, lost writes, torn file systems, hardware or identity that change."""
    linux.settle(guest)
    linux.sh(guest, "echo before >/root/lab-reboot && sync")
    hardware = _hardware(guest)
    identity = linux.sh(guest, IDENTITY)
    boots = [guest.boot_id]
    for number in range(1, REBOOTS + 1):
        start = time.monotonic()
        guest.reboot(timeout_s=BACK_WITHIN_S)
        took = time.monotonic() - start
        measured.add(f"reboot_{number}", took, "s", better="lower")
        boots.append(guest.boot_id)
        uptime = linux.uptime_s(guest)
        assert uptime <= took + 5, (
            f"the guest is up for {uptime:.0f} s, the reboot took {took:.0f} s: it did not reboot"
        )
        torn = [line.text for line in linux.kernel_log(guest) if "recover" in line.text and "EXT4-fs" in line.text]
        assert not torn, f"reboot {number} did not unmount the root file system: {torn[0]}"
    assert len(set(boots)) == REBOOTS + 1, f"{REBOOTS} reboots and the boot ids {boots}"
    kept = linux.sh(guest, "cat /root/lab-reboot 2>/dev/null; rm -f /root/lab-reboot")
    assert kept == "before", f"what was written before the reboots reads {kept!r} after them"
    linux.settle(guest)
    now = _hardware(guest)
    same = linux.sh(guest, IDENTITY)
    assert same == identity, f"machine-id and host name were {identity.split()}, after the reboots {same.split()}"
    assert now == hardware, f"before the reboots: {sorted(hardware - now)}; after them: {sorted(now - hardware)}"


def _hardware(guest: Guest) -> set[tuple[str, ...]]:
    # Linux probes SCSI disks side by side, so which of them is sda is another matter at each boot.
    disks = {
        ("" if "sd" in disk.drivers else disk.name, str(disk.size_bytes), disk.serial, *disk.drivers)
        for disk in linux.disks(guest)
    }
    return disks | {(nic.name, nic.mac, *nic.drivers) for nic in linux.nics(guest)}
