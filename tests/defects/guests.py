"""Defects of the guest: made by root, in the guest, while it runs."""

from __future__ import annotations

from tests.defects import kernel_modules, traffic
from tests.defects.definition import Defect

_LEAVES_FILES = {
    "boot.reboot": "it leaves a file on the root to find it again",
    "lifecycle.shutdown": "it leaves a file on the root to find it again",
    "lifecycle.snapshot": "it tells before from after by files on the root",
}

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
        collateral=_LEAVES_FILES,
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
        collateral=_LEAVES_FILES,
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
    Defect(
        name="hardware-clock-wrong",
        what="The hardware clock is two hours behind; the running system's is right.",
        breaks=("time.sync",),
        says=r"hardware clock is -7[12]\d\d",
        script="""
        date -u -s "@$(($(date +%s) - 7200))" && hwclock -u -w && date -u -s "@$(($(date +%s) + 7200))"
        """,
    ),
    Defect(
        name="out-of-tree-module",
        what="A kernel module is loaded that did not come with the kernel.",
        breaks=("boot.core",),
        says=r"tainted: \d+ \(bits 12, 13\)",
        in_guest=kernel_modules.load_out_of_tree,
    ),
    Defect(
        name="kernel-oops",
        what="The kernel ran into a breakpoint that nobody set, killed the process and went on.",
        breaks=("boot.core",),
        says="tainted: .*bits 7|kernel BUG",
        in_guest=kernel_modules.load_crashing,
    ),
    Defect(
        name="file-system-error",
        what="The kernel found an error in the root file system.",
        breaks=("boot.core",),
        says="EXT4-fs error",
        script="for trigger in /sys/fs/ext4/*/trigger_fs_error; do echo seeded >$trigger; done",
        collateral={"boot.reboot": "the error is still noted in the file system after the reboot"},
    ),
    Defect(
        name="packets-lost",
        what="Every twentieth packet that the guest sends is lost.",
        breaks=("net.offload_tso_csum",),
        says="segments were sent again",
        in_guest=lambda guest: traffic.disturb(guest, "qdisc replace dev eth0 root netem loss 5%"),
        collateral={"net.pv_nic": "a ping may be among the lost packets"},
    ),
    Defect(
        name="packets-damaged-when-sent",
        what="A bit of every twentieth packet that the guest sends is turned over.",
        breaks=("net.offload_tso_csum",),
        says="segments were sent again",
        in_guest=lambda guest: traffic.disturb(guest, "qdisc replace dev eth0 root netem corrupt 5%"),
        collateral={"net.pv_nic": "a ping may be among the damaged packets"},
    ),
    Defect(
        name="packets-damaged-when-received",
        what="A bit of every twentieth packet that the guest receives is turned over.",
        breaks=("net.offload_tso_csum",),
        says="segments came with wrong checksums",
        # Packets that the driver joined count as examined already.
        script="modprobe ifb && ip link set ifb0 up && ethtool -K eth0 gro off",
        in_guest=lambda guest: traffic.disturb(
            guest,
            "qdisc add dev eth0 ingress",
            "filter add dev eth0 parent ffff: matchall action mirred egress redirect dev ifb0",
            "qdisc add dev ifb0 root netem corrupt 5%",
        ),
        collateral={"net.pv_nic": "a ping may be among the damaged packets"},
    ),
    Defect(
        name="mtu-too-small",
        what="The network card is set to frames of 1400 bytes.",
        breaks=("net.pv_nic",),
        says="1400",
        script="ip link set eth0 mtu 1400",
    ),
    Defect(
        name="mtu-set-back",
        what="Something in the guest sets the card back to 1500 bytes whenever it changes.",
        breaks=("net.jumbo",),
        says="set an MTU of 9000, eth0 has 1500",
        script="""
        setsid sh -c 'while :; do read -r mtu </sys/class/net/eth0/mtu
        [ "$mtu" = 1500 ] || ip link set eth0 mtu 1500; usleep 20000; done' </dev/null >/dev/null 2>&1 &
        """,
    ),
    Defect(
        name="route-missing",
        what="The guest has no default route.",
        breaks=("net.pv_nic",),
        says="no default route",
        script="ip route del default",
        collateral={
            "net.jumbo": "the card is found by the default route",
            "net.offload_tso_csum": "the card is found by the default route",
            "net.rss": "the card is found by the default route",
        },
    ),
    Defect(
        name="names-not-resolved",
        what="The guest asks a name server where nobody is.",
        breaks=(),
        nobody="no feature of the catalogue speaks of names",
        script="echo nameserver 10.0.2.99 >/etc/resolv.conf",
    ),
    Defect(
        name="ipv6-off",
        what="IPv6 is switched off.",
        breaks=(),
        nobody="no feature of the catalogue speaks of IPv6, and the lab's own networks have none to reach",
        script="for file in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo 1 >$file; done",
    ),
    Defect(
        name="tmp-closed",
        what="Only root may write to /tmp.",
        breaks=(),
        nobody="no feature of the catalogue speaks of permissions, and every check is root",
        script="chmod 755 /tmp",
    ),
    Defect(
        name="random-numbers-constant",
        what="/dev/random gives zeros.",
        breaks=("device.rng",),
        says="same bytes",
        script="mount -o bind /dev/zero /dev/random",
    ),
    Defect(
        name="entropy-device-without-driver",
        what="No driver holds the entropy device.",
        breaks=("device.rng", "channel.bus_enumeration"),
        says="entropy",
        script="""
        while [ ! -e /run/lab-late ]; do sleep 0.1; done
        cd /sys/bus/virtio/drivers/virtio_rng
        for device in virtio*; do echo "$device" >unbind; done
        """,
    ),
    Defect(
        name="clone-kept-its-identity",
        what="The guest has the name and the machine-id of the machine that it is a copy of.",
        breaks=("agent.customization",),
        says="machine-id|host name|calls itself",
        script="""
        hostname jeos-5e1f00d1 && echo jeos-5e1f00d1 >/etc/hostname
        chmod 644 /etc/machine-id && echo 41cba6d02e5f4ba59fd0cd8a7b1e5a11 >/etc/machine-id
        """,
    ),
    Defect(
        name="machine-id-missing",
        what="/etc/machine-id is empty.",
        breaks=("agent.customization",),
        says="machine-id",
        script="chmod 644 /etc/machine-id && : >/etc/machine-id",
    ),
    Defect(
        name="machine-id-changes-at-boot",
        what="Each boot makes a new machine-id.",
        breaks=("boot.reboot",),
        says="machine-id",
        script="""
        echo 'rm -f /etc/machine-id; tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id' >>/usr/lib/interop-lab/late
        """,
        collateral={"agent.customization": "after a reboot the machine-id is not the one given"},
    ),
    Defect(
        name="root-not-unmounted",
        what="Going down, the guest leaves its root file system mounted.",
        breaks=("boot.reboot", "lifecycle.shutdown"),
        says="did not unmount|was not unmounted",
        script="rm /usr/bin/umount && printf '#!/bin/sh\\n' >/usr/bin/umount && chmod 755 /usr/bin/umount && sync",
    ),
    Defect(
        name="processor-computes-wrong",
        what="Sums that the processor computes are wrong.",
        cell="qemu/debian-12/pc-bios",  # busybox's shell would ask itself for the sum
        breaks=("cpu.smp",),
        says="wrong sums",
        script="""
        mv /usr/bin/sha256sum /usr/bin/sha256sum-true
        printf '#!/bin/sh\\nsha256sum-true "$@" | tr 0 1\\n' >/usr/bin/sha256sum
        chmod 755 /usr/bin/sha256sum
        """,
    ),
    Defect(
        name="offloads-off",
        what="The driver leaves checksum and segmentation offload off although the card offers them.",
        cell="qemu/jeos/q35-vmxnet3-pvscsi",
        breaks=("net.offload_tso_csum",),
        says="leaves offloads off",
        script="ethtool -K eth0 tx off tso off",
    ),
    Defect(
        name="unit-failed",
        what="A service failed to start.",
        cell="qemu/debian-12/pc-bios",
        breaks=("boot.core",),
        says="failed units: seeded.service",
        script="systemd-run --quiet --unit=seeded false; while systemctl is-active -q seeded; do sleep 0.2; done",
    ),
    Defect(
        name="gateway-replaced",
        what="The guest does not use the gateway that the host gave it.",
        cell="uml/jeos/uml",
        breaks=("net.static_ip_injection",),
        says="the host gave the gateway",
        script="""
        set -- $(ip route list default) && old=$3 && ip route del default && ip route add default via "${old%.*}.77"
        """,
        collateral={"net.pv_nic": "nobody answers at the wrong gateway"},
    ),
    Defect(
        name="ctrl-alt-del-ignored",
        what="Nothing in the guest listens to the keys that stand for a power button there.",
        cell="uml/jeos/uml",
        breaks=("lifecycle.shutdown",),
        says="to shut down|shut down",
        script="printf '#!/bin/sh\\n' >/usr/lib/interop-lab/ctrl-alt-del; sync",
    ),
)
