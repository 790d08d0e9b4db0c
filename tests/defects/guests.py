"""Defects of the guest: made by root, in the guest, while it runs."""

from __future__ import annotations

from tests.defects.definition import Defect

DEFECTS = (
    Defect(
        name="clock-an-hour-late",
        what="The clock stands an hour in the past.",
        breaks=("time.sync",),
        says=r"clock is -3[56]\d\d",
        script='date -u -s "@$(($(date +%s) - 3600))"',
    ),
    Defect(
        name="clock-drifts",
        what="The clock goes one per cent too fast.",
        breaks=("time.sync",),
        says=r"drifts \+\d{4,5} ppm",
        script="adjtimex -q -t 10100",
    ),
    Defect(
        name="root-read-only",
        what="The root file system is mounted read-only.",
        breaks=("boot.core",),
        says="read-only",
        script="sync; mount -o remount,ro /",
        collateral={
            "boot.reboot": "it leaves a file on the root to find it again",
            "lifecycle.shutdown": "it leaves a file on the root to find it again",
            "lifecycle.snapshot": "it tells before from after by files on the root",
        },
    ),
    Defect(
        name="root-full",
        what="The root file system has no space left.",
        breaks=("boot.core",),
        says="no space",
        script="""
        for block in 1048576 4096 512; do dd if=/dev/zero of=/root/ballast-$block bs=$block 2>/dev/null; done
        sync
        """,
        collateral={
            "boot.reboot": "it leaves a file on the root to find it again",
            "lifecycle.shutdown": "it leaves a file on the root to find it again",
            "lifecycle.snapshot": "it tells before from after by files on the root",
        },
    ),
    Defect(
        name="kernel-tainted",
        what="The kernel says that it warned since it booted (taint bit 9).",
        breaks=("boot.core",),
        says=r"tainted: 512 \(bits 9\)",
        script="echo 512 >/proc/sys/kernel/tainted",
    ),
    Defect(
        name="second-host-key",
        what="An SSH host key that nobody gave lies beside the right one.",
        breaks=("agent.customization",),
        says="2 SSH host keys",
        script="dropbearkey -t ecdsa -f /etc/dropbear/dropbear_ecdsa_host_key",
    ),
    Defect(
        name="host-name-ignored",
        what="The guest calls itself localhost.",
        breaks=("agent.customization",),
        says="calls itself 'localhost'",
        script="hostname localhost; echo localhost >/etc/hostname",
    ),
    Defect(
        name="balloon-without-driver",
        what="No driver holds the memory balloon.",
        breaks=("memory.balloon", "channel.bus_enumeration"),
        says="balloon|to see the guest at",
        script="""
        cd /sys/bus/virtio/drivers/virtio_balloon
        for device in virtio*; do echo "$device" >unbind; done
        """,
    ),
    Defect(
        name="gateway-dead",
        what="The default route leads to an address where nobody is.",
        breaks=("net.pv_nic",),
        says="100% packet loss",
        script="ip route replace default via 10.0.2.99 dev eth0",
    ),
    Defect(
        name="power-button-ignored",
        what="Nothing in the guest listens to the power button.",
        breaks=("lifecycle.shutdown",),
        says="to shut down after the power button",
        script="while [ ! -e /run/lab-late ]; do sleep 0.1; done; killall acpid; rm -r /etc/acpi/PWRF",
    ),
)
