"""Defects of the hardware: the machine that QEMU makes is not the one that was asked for."""

from __future__ import annotations

from lab.contracts import Firmware, Profile
from tests.defects.definition import Defect
from tests.defects.qemu_line import (
    card,
    cut,
    device,
    each,
    failing,
    forgetful,
    in_turn,
    keeping,
    kernel,
    more,
    node,
    option,
    swapped,
    without,
)

TWO = Profile("two", Firmware.BIOS, "q35", "pvscsi", "vmxnet3", 2, 512)
"""Hardware with two processors and a network card of several queues."""

DEFECTS = (
    Defect(
        name="half-the-memory",
        what="The machine has 256 MiB, 512 were asked for.",
        breaks=("boot.core",),
        says="asked for 512 MiB, the guest has 2",
        line=option("-m", "256M"),
        collateral={"memory.balloon": "the host cannot take memory down to a share of what was asked for"},
    ),
    Defect(
        name="memory-not-used",
        what="The kernel uses less memory than the machine has.",
        breaks=("boot.core",),
        says="asked for 512 MiB, the guest has 3",
        line=kernel("mem=400M"),
        collateral={"memory.balloon": "the balloon counts from the memory that the machine has"},
    ),
    Defect(
        name="processor-missing",
        what="The machine has one processor, two were asked for.",
        cell="qemu/jeos/q35-vmxnet3-pvscsi",
        profile=TWO,
        breaks=("cpu.smp", "cpu.topology"),
        says="asks for 2 processors, 1 |asked for 2 processors",
        line=option("-smp", "1"),
        collateral={"net.rss": "the card has a queue for the one processor"},
    ),
    Defect(
        name="processor-offline",
        what="The second processor is switched off.",
        cell="qemu/jeos/q35-vmxnet3-pvscsi",
        profile=TWO,
        breaks=("cpu.smp",),
        says="asks for 2 processors, 1 ",
        script="echo 0 >/sys/devices/system/cpu/cpu1/online",
        collateral={"cpu.topology": "what is off has no place"},
    ),
    Defect(
        name="processors-share-a-core",
        what="The two processors are threads of one core.",
        cell="qemu/jeos/q35-vmxnet3-pvscsi",
        profile=TWO,
        breaks=("cpu.topology",),
        says="processors share cores",
        # The processor must be an Intel one: QEMU shows threads of AMD's only with `topoext`.
        line=in_turn(
            option("-smp", "2,sockets=1,cores=1,threads=2"),
            lambda line: [f"{word},vendor=GenuineIntel" if word.startswith("max,") else word for word in line],
        ),
    ),
    Defect(
        name="memory-in-two-nodes",
        what="The memory is split into two NUMA nodes.",
        cell="qemu/jeos/q35-vmxnet3-pvscsi",
        profile=TWO,
        breaks=("cpu.topology",),
        says="no NUMA nodes, the guest has 0-1",
        line=more(
            *("-object", "memory-backend-ram,id=half0,size=256M", "-numa", "node,nodeid=0,cpus=0,memdev=half0"),
            *("-object", "memory-backend-ram,id=half1,size=256M", "-numa", "node,nodeid=1,cpus=1,memdev=half1"),
        ),
        collateral={"boot.core": "the kernel warns that one processor package lies in two nodes, and is tainted by it"},
    ),
    Defect(
        name="card-without-queues",
        what="The network card is a model with a single queue.",
        cell="qemu/jeos/q35-vmxnet3-pvscsi",
        profile=TWO,
        breaks=("net.rss", "net.pv_nic"),
        says="1 receive queue|one receive queue|is driven by",
        line=card("virtio-net-pci"),
        collateral={"net.offload_tso_csum": "the other card offers none here"},
    ),
    Defect(
        name="card-of-another-model",
        what="The network card is another model than the one asked for.",
        breaks=("net.pv_nic", "channel.bus_enumeration"),
        says="is driven by vmxnet3|lists no network card",
        line=card("vmxnet3"),
        collateral={"net.hotplug": "the first card of another kind takes another place on the bus"},
    ),
    Defect(
        name="discard-not-offered",
        what="The empty disk does not offer discard.",
        breaks=("storage.trim",),
        says="takes no discard",
        line=device("disk-data", discard=False),
    ),
    Defect(
        name="discard-not-passed-on",
        what="Discards end in the hypervisor and never reach the file behind the disk.",
        breaks=("storage.trim",),
        says="the host to get .* back",
        line=node("data", keeping),
    ),
    Defect(
        name="disk-too-small",
        what="The empty disk is half as large as was asked for.",
        breaks=("storage.pv_block",),
        says="was made with 67108864 bytes and has 33554432",
        line=node("data", cut),
    ),
    Defect(
        name="disk-missing",
        what="The empty disk is not there.",
        breaks=("storage.pv_block",),
        says="should see one empty disk",
        line=each("-device", lambda it: None if it.get("id") == "disk-data" else it),
        collateral={
            "storage.trim": "it needs the empty disk",
            "storage.online_resize": "it needs the empty disk",
        },
    ),
    Defect(
        name="disk-forgets",
        what="The empty disk takes every write and keeps none.",
        breaks=("storage.pv_block",),
        says="is not what was written",
        line=node("data", forgetful),
        collateral={
            "storage.trim": "it writes to the empty disk and looks at the space behind it",
            "storage.online_resize": "it writes to the empty disk, which does not grow either",
        },
    ),
    Defect(
        name="disk-fails",
        what="Writing to the empty disk ends in input/output errors.",
        breaks=("storage.pv_block",),
        says="I/O error|Input/output error",
        line=node("data", failing),
        collateral={
            "boot.core": "the kernel logs the errors",
            "storage.hotplug": "the kernel logs the errors",
            "storage.trim": "it writes to the empty disk",
            "storage.online_resize": "it writes to the empty disk",
        },
    ),
    Defect(
        name="disks-in-another-order",
        what="The seed and the empty disk are in each other's place.",
        breaks=(),
        nobody="no feature of the catalogue promises an order of disks; each is found by what it holds",
        line=swapped("seed", "data"),
    ),
    Defect(
        name="disks-share-a-serial",
        what="All disks have the same serial number.",
        breaks=("storage.scsi_wwn",),
        says="share a name",
        line=each("-device", lambda it: {**it, "serial": "lab-root"} if "serial" in it else it),
    ),
    Defect(
        name="disks-without-serial",
        what="No disk has a serial number.",
        breaks=("storage.scsi_wwn",),
        says="without a name",
        line=each("-device", lambda it: {key: value for key, value in it.items() if key != "serial"}),
    ),
    Defect(
        name="disk-on-another-controller",
        what="One of the disks does not hang on the SCSI controller that was asked for.",
        cell="qemu/jeos/q35-vmxnet3-pvscsi",
        breaks=("storage.pv_scsi",),
        says="not on vmw_pvscsi",
        line=each(
            "-device",
            lambda it: (
                {"driver": "virtio-blk-pci", "id": "disk-data", "drive": "data", "serial": "lab-data"}
                if it.get("id") == "disk-data"
                else it
            ),
        ),
    ),
    Defect(
        name="nvme-disk-too-small",
        what="The empty NVMe disk is half as large as was asked for.",
        cell="qemu/jeos/q35-nvme",
        breaks=("storage.nvme",),
        says="was made with 67108864 bytes and has 33554432",
        line=node("data", cut),
    ),
    Defect(
        name="root-on-virtio",
        what="The root disk hangs on virtio, NVMe was asked for.",
        cell="qemu/jeos/q35-nvme",
        breaks=("storage.nvme",),
        says="is on vda, driven by virtio_blk",
        line=in_turn(
            each(
                "-device",
                lambda it: (
                    {"driver": "virtio-blk-pci", "id": "disk-root", "drive": "root", "serial": "lab-root"}
                    if it.get("id") == "disk-root"
                    else it
                ),
            ),
            kernel("root=/dev/vda"),
        ),
        collateral={"storage.scsi_wwn": "the disks are of two kinds, and one kind has no names of its own"},
    ),
    Defect(
        name="entropy-device-constant",
        what="The entropy device gives zeros.",
        breaks=("device.rng",),
        says="same bytes",
        line=each("-object", lambda it: {**it, "filename": "/dev/zero"} if it.get("id") == "rng0" else it),
    ),
    Defect(
        name="panic-not-told",
        what="The machine has no device by which a guest could tell that its kernel panicked.",
        breaks=("lifecycle.crash_dump",),
        says="notice that the guest's kernel panicked",
        line=without("pvpanic"),
    ),
    Defect(
        name="display-without-driver",
        what="The display is a model that the guest has no driver for; it stays as the hypervisor made it.",
        breaks=("device.video",),
        says="screen",
        line=each("-device", lambda it: {"driver": "bochs-display", "id": "display"} if it["driver"] == "VGA" else it),
    ),
    Defect(
        name="console-dead",
        what="Nothing that is written to the serial line arrives.",
        breaks=("device.serial_console", "boot.core"),
        says="in the console log|the console",
        line=option("-chardev", "null,id=console"),
        collateral={"lifecycle.crash_dump": "the console shows no panic"},
    ),
    Defect(
        name="console-on-the-screen",
        what="The guest's console is the screen and not the serial line.",
        breaks=("device.serial_console", "boot.core"),
        says="in the console log|the console",
        line=kernel(without="console=ttyS0"),
        collateral={"lifecycle.crash_dump": "the console shows no panic"},
    ),
    Defect(
        name="started-years-ago",
        what="The hardware clock stands in the year 2020, and the guest believes it.",
        breaks=("time.sync",),
        says=r"clock is -\d{9}",
        line=more("-rtc", "base=2020-01-01T00:00:00"),
    ),
    Defect(
        name="no-clock-but-the-tick",
        what="The kernel counts ticks instead of reading a clock.",
        breaks=("time.clocksource",),
        says="no clock but the tick",
        line=kernel("highres=off nohz=off clocksource=jiffies"),
        collateral={"time.sync": "lost ticks are lost time"},
    ),
    Defect(
        name="hotplug-not-seen",
        what="The guest does not listen to what is plugged in and out.",
        breaks=("storage.hotplug", "net.hotplug"),
        says="let go of|a new disk in the guest|a network card with address",
        line=kernel("acpiphp.disable=1"),
    ),
    Defect(
        name="uefi-for-bios",
        what="UEFI started the guest, legacy firmware was asked for.",
        breaks=("firmware.bios",),
        says="UEFI started the guest",
        line=more("-bios", "/usr/share/ovmf/OVMF.fd"),
    ),
    Defect(
        name="bios-for-uefi",
        what="Legacy firmware started the guest, UEFI was asked for.",
        cell="qemu/jeos/q35-uefi",
        breaks=("firmware.uefi",),
        says="legacy firmware started the guest|efivarfs|variables",
        line=option("-machine", "q35"),
    ),
    Defect(
        name="uefi-variables-closed",
        what="The kernel does not use the runtime services of the firmware.",
        cell="qemu/jeos/q35-uefi",
        breaks=("firmware.uefi",),
        says="efivars",
        line=kernel("efi=noruntime"),
    ),
    Defect(
        name="other-devices-than-asked",
        what="The network card is virtio instead of e1000e, and the empty SATA disk is half as large.",
        cell="qemu/debian-12/q35-e1000e-sata",
        breaks=("device.nic_emulated", "storage.emulated"),
        says="is driven by virtio_net|was made with 67108864 bytes and has 33554432",
        line=in_turn(card("virtio-net-pci"), node("data", cut)),
    ),
)
