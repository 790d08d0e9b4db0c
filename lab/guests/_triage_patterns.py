"""What consoles say when a guest does not come up: a table, one row a kind of failure.

A row matches a single line, already free of escape sequences and at most 500 characters long. Its regular
expressions have no nested repetition, so that no line costs more than its length.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum

from lab.errors import Blame


class Stage(IntEnum):
    """How far a boot came, as its console tells."""

    NOTHING = 0  # the console is empty
    FIRMWARE = 1
    BOOT_LOADER = 2
    KERNEL = 3
    USER_SPACE = 4
    LOGIN = 5


# Only lines with one of these words are looked at more closely: nine lines in ten are not.
WORTH = re.compile(
    r"[Pp]anic|BUG|Oops|[Ff]ault|[Ee]rror|ERROR|[Ff]ail|FAIL|No |no |[Nn]ot |ALERT|Warning: |grub|GRUB|Shell|Exception"
    r"|ASSERT|VFS|[Ww]aiting|Gave up|initramfs|dracut|emergency|memory|LOCKUP|stall|blocked|orruption|Remounting|RUN "
    r"|Violation|Denied|PXE-|^L |maintenance|[Tt]im|BIOS|UEFI|BdsDxe|Boot|XEN|Xen|Core dump|Reached|login:|interop-lab"
    r"|Welcome|OpenRC|INIT|  OK  |systemd|Run /|Linux|EFI|LINUX|Load|LILO|Hypervisor|DMI: |ptrace|QEMU|udhcpc"
    r"|tty|hvc|mounting|Unable|divide|start_image|invalid|unknown|BTRFS|Traceback|DHCPOFFERS|detected"
)
# A kernel line carries printk's time stamp; "<6>" before it with a raw console, "[T1]" with CONFIG_PRINTK_CALLER.
KERNEL_LINE = re.compile(r"(?:<\d{1,3}>)?\[ {0,8}\d{1,9}\.\d{6}\](?:\[ {0,6}[TC]\d{1,7}\])? ?(.*)")
LINUX_VERSION = re.compile(r"Linux version (\S{1,80})")
NEW_BOOT = re.compile(
    r"SeaBIOS \(version|^UEFI firmware \(|^BdsDxe: (?:loading|starting) Boot|^Booting from (?:Hard|ROM|DVD|Floppy)"
    r"|^\(XEN\) Xen version|^Core dump limits :"
)


@dataclass(frozen=True)
class Progress:
    """A line that proves a stage."""

    stage: Stage
    pattern: re.Pattern[str]


PROGRESS = (
    Progress(
        Stage.LOGIN, re.compile(r"^\S{1,70} login: ?$|interop-lab: ready|Reached target \S{0,10} ?-? ?Multi-User")
    ),
    Progress(Stage.LOGIN, re.compile(r"Reached target .{0,40}(?:Multi-User System|Graphical Interface|Login Prompts)")),
    Progress(
        Stage.USER_SPACE, re.compile(r"^Welcome to (?!GRUB).{2,60}!$|OpenRC \d|^INIT: version|^\[ {0,3}OK {0,3}\] ")
    ),
    # "Run /init" is the initial RAM disk, whose work is the kernel's start; the guest's own user space comes after.
    Progress(Stage.USER_SPACE, re.compile(r"systemd\[1\]: |Run /(?!init as )\S{1,60} as init process|^interop-lab: ")),
    Progress(Stage.KERNEL, LINUX_VERSION),
    Progress(Stage.KERNEL, re.compile(r"^Decompressing Linux|^Booting the kernel|^EFI stub: ")),
    Progress(
        Stage.BOOT_LOADER, re.compile(r"^Welcome to GRUB!|^GRUB loading|GNU GRUB +version|^(?:ISO|EXT|SYS)LINUX \d")
    ),
    Progress(Stage.BOOT_LOADER, re.compile(r"^Loading (?:Linux|initial ramdisk|Kernel)|^LILO |^Booting `")),
)


@dataclass(frozen=True)
class Failure:
    """One kind of failure. It counts unless a later line of the same boot proves a stage above `stage`."""

    name: str  # the `class` of a triage
    stage: Stage
    pattern: re.Pattern[str]
    cause: str  # {0} is what the pattern's group caught
    blame: Blame
    kernel_only: bool  # only the kernel's own lines count, a program may print the same words


@dataclass(frozen=True)
class _Kind:
    """Rows of (regular expression, cause) that have the rest in common."""

    name: str
    stage: Stage
    rows: tuple[tuple[str, str], ...]
    blame: Blame = Blame.PRODUCT
    kernel_only: bool = False


_NO_DISK = "the firmware found no bootable device"
_NO_ROOT = "the initial RAM disk does not find the root device {0}"
_DAMAGED = "the file system is damaged: {0}"
_FAILED = "the kernel failed: {0}"
_HUNG = "a processor hung: {0}"

# The order matters where one failure causes another: the first kind that is found is the cause.
_KINDS = (
    # SeaBIOS, EDK2, iPXE and other firmware.
    _Kind(
        "firmware",
        Stage.FIRMWARE,
        (
            (r"^No bootable device", _NO_DISK),
            (r"^Boot failed: (.{1,80})", "the firmware cannot boot: {0}"),
            (r"^BdsDxe: No bootable option", _NO_DISK),
            (r"^BdsDxe: failed to (?:load|start) (Boot\w{1,8}.{0,120})", "the firmware could not load {0}"),
            (r"^UEFI Interactive Shell|^Shell> ?$", "nothing was bootable: the firmware's shell waits"),
            (r"Could not read from the boot medium", "the firmware cannot read the disk"),
            (r"^Operating System not found|^Missing operating system|^Non-System disk", _NO_DISK),
            (r"^Reboot and [Ss]elect proper Boot device", _NO_DISK),
            (r"^No more network devices|^PXE-E\d\d", "the firmware tried the network and found nothing"),
            (r"((?:Security Violation|Access Denied)) *$", "Secure Boot refused the boot loader: {0}"),
        ),
    ),
    _Kind(
        "firmware",
        Stage.FIRMWARE,
        (
            (r"^!!!! (X64 Exception Type.{0,80})", "the firmware crashed: {0}"),
            (r"^ASSERT(?:_EFI_ERROR)? [\[(](.{0,120})", "the firmware stopped: {0}"),
        ),
        Blame.HYPERVISOR,
    ),
    _Kind(
        "bootloader",
        Stage.BOOT_LOADER,
        (
            (r"^error: (?:\S{1,60}:)? ?((?:file|symbol|disk|device|partition|unknown) .{1,120})", "GRUB: {0}"),
            (r"^error: (?:\S{1,60}:)? ?((?:no such|you need|out of|attempt|can't|not a) .{1,120})", "GRUB: {0}"),
            (r"^error: (?:\S{1,60}:)? ?((?:bad shim|invalid|premature|verification) .{1,120})", "GRUB: {0}"),
            (r"^grub rescue>", "GRUB does not find its own files and waits in its rescue shell"),
            (r"^grub> ?|^ {0,9}Minimal BASH-like line editing", "GRUB has no configuration and waits for a person"),
            (r"^Could not find kernel image: (.{0,80})", "the boot loader does not find the kernel {0}"),
            (r"^Failed to open (\\EFI.{0,100})|^start_image\(\) returned (.{0,80})", "shim does not start GRUB: {0}"),
            (r"^L(?: \d\d){3,40}", "LILO cannot read its files"),
            (r"^Failed to load ldlinux|^Boot error *$", "SYSLINUX does not find its files"),
        ),
    ),
    # Before panics, because a missing root ends in one.
    _Kind(
        "root-missing",
        Stage.KERNEL,
        (
            (r"VFS: Cannot open root device (.{0,80})", "the kernel does not find the root device {0}"),
            (r"VFS: Unable to mount root fs(.{0,60})", "the kernel cannot mount the root file system {0}"),
            (r"Waiting for root device (.{0,60})", "the kernel waits for the root device {0}"),
        ),
        kernel_only=True,
    ),
    _Kind(
        "root-missing",
        Stage.USER_SPACE,
        (
            (r"ALERT! +(\S{1,80}) does not exist|^Gave up waiting for root", _NO_ROOT),
            (r"^\(initramfs\)", "the initial RAM disk waits in its shell, without a root file system"),
            (r"Warning: /dev/(\S{1,80}) does not exist", _NO_ROOT),
            (r"dracut-initqueue.{0,60}(?:timeout|timed out)", _NO_ROOT),
            (r"^dracut:/#|^Entering emergency mode\. Exit the shell", "dracut waits in its emergency shell"),
            (r"^ERROR: device '([^']{0,80})' not found|^ERROR: Unable to find root device '([^']{0,80})", _NO_ROOT),
            (r"^initramfs emergency recovery shell", "the initial RAM disk cannot mount the root file system"),
            (r"mounting (\S{1,80}) on /(?:new_?root|sysroot|root) failed", "the root device {0} cannot be mounted"),
            (r"^interop-lab: root disk (\S{1,80}) not found", _NO_ROOT),
            (r"^interop-lab: (\S{1,80}) is no ext4 file system", "the root device {0} cannot be mounted"),
        ),
    ),
    _Kind(
        "oom",
        Stage.LOGIN,
        (
            (r"Kernel panic - not syncing: (?:Out of memory|System is deadlocked)(.{0,80})", "memory ran out {0}"),
            (r"Out of memory: Kill(?:ed)? process \d{1,9} \(?([^ )]{1,40})", "memory ran out, the kernel killed {0}"),
        ),
        kernel_only=True,
    ),
    _Kind(
        "hang",
        Stage.LOGIN,
        ((r"Kernel panic - not syncing: ((?:soft|hard|hung|Hard|Watchdog).{0,80})", "a processor or task hung: {0}"),),
        kernel_only=True,
    ),
    _Kind(
        "kernel-panic",
        Stage.LOGIN,
        (
            (r"Kernel panic - not syncing: ?(.{0,160})", "kernel panic: {0}"),
            (r"(BUG: (?:unable to handle|kernel NULL).{0,100})", _FAILED),
            (r"((?:kernel BUG at|Unable to handle kernel).{0,100})", _FAILED),
            (r"((?:Oops|general protection fault|invalid opcode)[:,] .{0,90}\[#\d.{0,60})", _FAILED),
            (r"((?:divide error|double fault|stack segment): .{0,20}\[#\d.{0,60})", _FAILED),
        ),
        Blame.GUEST,
        kernel_only=True,
    ),
    _Kind(
        "hang",
        Stage.USER_SPACE,
        (
            (r"(BUG: (?:soft|workqueue) lockup.{0,80})", _HUNG),
            (r"(hard LOCKUP.{0,40})", _HUNG),
            (r"(rcu\S{0,12} (?:self-)?detected \S{0,20} ?stall.{0,60})", _HUNG),
            (r"INFO: task (\S{1,40}) blocked for more than", "the process {0} hung in the kernel"),
        ),
        kernel_only=True,
    ),
    _Kind(
        "filesystem",
        Stage.LOGIN,
        (
            (r"(EXT4-fs error .{0,120})", _DAMAGED),
            (r"(XFS \(\S{1,30}\): .{0,20}(?:[Cc]orruption|Internal error).{0,80})", _DAMAGED),
            (r"(BTRFS (?:critical|error).{0,120})", _DAMAGED),
            (r"(I/O error,? (?:on )?dev \S{1,30}.{0,60})", "a disk does not answer: {0}"),
            (r"Remounting filesystem read-only", "the kernel made a file system read-only"),
        ),
        kernel_only=True,
    ),
    _Kind(
        "filesystem",
        Stage.USER_SPACE,
        (
            (r"UNEXPECTED INCONSISTENCY; RUN fsck MANUALLY", "a file system needs a repair by hand"),
            (r"(?:Failed to mount|Dependency failed for) (/.{1,80}|Local File Systems)", "not mounted: {0}"),
            (r"^You are in emergency mode|Give root password for maintenance", "the guest is in its emergency mode"),
        ),
    ),
    # The guest may be up for all that.
    _Kind(
        "network",
        Stage.LOGIN,
        (
            (r"Failed to start (.{0,40}[Nn]etwork.{0,60})", "the guest's network did not start: {0}"),
            (r"^No DHCPOFFERS received|^udhcpc: no lease, failing", "nobody answered the guest's DHCP request"),
            (r"Timeout occurred while waiting for network", "the guest has no network connection"),
        ),
    ),
    _Kind(
        "provisioning",
        Stage.LOGIN,
        (
            (r"Failed to start (.{0,40}cloud-init.{0,60})", "cloud-init failed: {0}"),
            (r"cloud-init\[\d{1,9}\]: .{0,60}((?:CRITICAL|Traceback).{0,80})", "cloud-init failed: {0}"),
            (r"^interop-lab: (.{0,60}(?:no seed|fail|cannot).{0,100})", "the lab's first-boot step failed: {0}"),
        ),
        Blame.LAB,
    ),
)

FAILURES = tuple(
    Failure(kind.name, kind.stage, re.compile(pattern), cause, kind.blame, kind.kernel_only)
    for kind in _KINDS
    for pattern, cause in kind.rows
)

# What the kernel prints around and after a panic; anything else behind it shows that the machine lived on.
AFTER_PANIC = re.compile(
    r"CPU:|Hardware name|Call Trace|Call trace|Modules linked|Kernel Offset|RIP:|Code:|RSP|R[A-Z0-9]{2}:"
    r"|[DEFGC][SRE]\d?:"
    r"|Rebooting in|---\[|</?TASK>|</?[A-Z]{2,5}>| {1,3}\??|Comm:|Workqueue|Dumping|Sending NMI|\S{1,60}\+0x|EIP|pstate"
)

OS = (
    re.compile(r"^Welcome to (?!GRUB)(.{2,60})!$"),
    re.compile(r"^Welcome to (Alpine Linux .{1,40})$"),
    re.compile(
        r"^((?:Debian|Ubuntu|Red Hat|CentOS|Rocky|AlmaLinux|Oracle)[ -~]{1,50}?)(?: \S{1,64})? (?:tty|hvc)\w{1,6}$"
    ),
)

# Names as `lab identify` uses them; the first that matches, so the kernel's own word goes before the firmware's.
HYPERVISORS = (
    ("hyperv", re.compile(r"Hypervisor detected: Microsoft|DMI: Microsoft Corporation Virtual Machine")),
    ("vmware", re.compile(r"Hypervisor detected: VMware|DMI: VMware")),
    ("xen", re.compile(r"Hypervisor detected: Xen|paravirtualized kernel on Xen|\(XEN\) |DMI: Xen ")),
    ("kvm", re.compile(r"Hypervisor detected: KVM|paravirtualized kernel on KVM")),
    ("virtualbox", re.compile(r"DMI: innotek GmbH")),
    ("uml", re.compile(r"^Core dump limits :|^Checking that ptrace can|User[ -]Mode Linux")),
    ("qemu", re.compile(r"DMI: QEMU|^SeaBIOS \(version|QEMU (?:HARDDISK|DVD-ROM|NVMe)")),
)
