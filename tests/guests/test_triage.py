"""Console logs are judged: how far, what stopped it, whose fault; and nothing that a guest prints fools or stops it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab import errors
from lab.errors import Blame
from lab.guests import _triage_patterns as patterns
from lab.guests import triage
from lab.guests.channels.ssh import Answer
from lab.guests.triage import Stage

FIRMWARE = "SeaBIOS (version 1.16.2-debian-1.16.2-1)\nBooting from Hard Disk...\n"
KERNEL = (
    "[    0.000000] Linux version 6.1.0-40-cloud-amd64 (debian-kernel@lists.debian.org) (gcc-12)\n"
    "[    0.000000] DMI: QEMU Standard PC (Q35 + ICH9, 2009), BIOS 1.16.2 04/01/2014\n"
    "[    0.000000] Hypervisor detected: KVM\n"
)
USER_SPACE = "[    2.500000] Run /sbin/init as init process\nWelcome to Debian GNU/Linux 12 (bookworm)!\n"
LOGIN = "\nDebian GNU/Linux 12 db1 ttyS0\n\ndb1 login: "
PANIC = (
    "[    3.000000] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100\n"
    "[    3.000100] CPU: 0 PID: 1 Comm: init Not tainted 6.1.0-40-cloud-amd64 #1\n"
    "[    3.000200] Call Trace:\n[    3.000300]  <TASK>\n[    3.000400]  dump_stack_lvl+0x44/0x5c\n"
    "[    3.000500] Kernel Offset: disabled\n"
    "[    3.000600] ---[ end Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100 ]---\n"
)


def judged(*parts: str) -> triage.Triage:
    return triage.triage("".join(parts).encode())


def test_a_guest_at_its_login_booted() -> None:
    found = judged(FIRMWARE, KERNEL, USER_SPACE, LOGIN)

    assert found.as_json() == {
        "booted": True,
        "class": "none",
        "blame": "none",
        "cause": "",
        "proof": "",
        "lines": [],
        "os": "Debian GNU/Linux 12",
        "kernel": "6.1.0-40-cloud-amd64",
        "hypervisor": "kvm",
    }


def test_a_panic_is_found_with_its_line_and_its_reason() -> None:
    found = judged(KERNEL, USER_SPACE, PANIC)

    assert (found.booted, found.failure_class, found.blame) == (False, "kernel-panic", Blame.GUEST)
    assert found.cause == "kernel panic: Attempted to kill init! exitcode=0x00000100"
    assert found.lines[0] == 6


def test_a_panic_after_the_login_leaves_the_boot_booted() -> None:
    found = judged(KERNEL, USER_SPACE, LOGIN, "\n", PANIC)

    assert (found.booted, found.failure_class) == (True, "kernel-panic")


def test_a_panic_before_an_automatic_reboot_still_counts() -> None:
    found = judged(FIRMWARE, KERNEL, PANIC, FIRMWARE, KERNEL)

    assert (found.booted, found.failure_class) == (False, "kernel-panic")


def test_a_boot_after_a_panic_is_judged_for_itself() -> None:
    found = judged(FIRMWARE, KERNEL, PANIC, FIRMWARE, KERNEL, USER_SPACE, LOGIN)

    assert (found.booted, found.failure_class) == (True, "none")


@pytest.mark.parametrize(
    "text",
    [
        "Kernel panic - not syncing: printed by a program\n",
        "[FAILED] Kernel panic - not syncing: printed by a unit\n",
        "<0>Kernel panic - not syncing: no time stamp\n",
        "Kernel panic - not syncing: x\n---[ end Kernel panic - not syncing: x ]---\n",
        # By /dev/kmsg it gets a time stamp, but the machine goes on.
        "[    4.000000] Kernel panic - not syncing: from a program\n[    9.000000] eth0: link becomes ready\n",
        "[    4.000000] BUGS are welcome\nBUG: unable to handle kernel NULL pointer dereference\n",
        "Oops: 0000 [#1] SMP\n",
    ],
)
def test_a_program_that_prints_the_words_of_a_panic_does_not_fool(text: str) -> None:
    assert judged(KERNEL, USER_SPACE, text, LOGIN).failure_class == "none"
    assert judged(KERNEL, USER_SPACE, text).failure_class == "timeout"


def test_a_panic_counts_in_a_log_without_any_time_stamp() -> None:
    found = judged("Linux version 4.4.0 (x@y)\nKernel panic - not syncing: No working init found.\n")

    assert found.failure_class == "kernel-panic"


# One line that each row of the table is for, with what makes the log plausible around it.
EXAMPLES = [
    ("firmware", FIRMWARE + "Boot failed: could not read the boot disk\n\nNo bootable device.\n"),
    ("firmware", FIRMWARE + "Boot failed: not a bootable disk\n"),
    ("firmware", "BdsDxe: No bootable option or device was found.\n"),
    ("firmware", 'BdsDxe: failed to load Boot0001 "UEFI QEMU HARDDISK" from PciRoot(0x0): Not Found\n'),
    ("firmware", "UEFI Interactive Shell v2.2\nEDK II\nShell> "),
    ("firmware", "FATAL: Could not read from the boot medium! System halted.\n"),
    ("firmware", "Operating System not found\n"),
    ("firmware", "Reboot and Select proper Boot device\n"),
    ("firmware", "PXE-E53: No boot filename received\nNo more network devices\n"),
    ("firmware", 'BdsDxe: loading Boot0002 "UEFI Misc Device"\nBdsDxe: failed to start: Access Denied\n'),
    ("firmware", "!!!! X64 Exception Type - 0E(#PF - Page-Fault)  CPU Apic ID - 00000000 !!!!\n"),
    ("firmware", "ASSERT [DxeCore] /build/edk2/MdeModulePkg/Core/Dxe/Mem/Page.c(123): Status\n"),
    ("bootloader", "Welcome to GRUB!\n\nerror: no such device: 1234-abcd.\nEntering rescue mode...\ngrub rescue> "),
    ("bootloader", "GRUB loading.\nerror: ../../grub-core/fs/fshelp.c:257:file `/boot/vmlinuz' not found.\n"),
    ("bootloader", "Welcome to GRUB!\nerror: bad shim signature.\nerror: you need to load the kernel first.\n"),
    ("bootloader", "Welcome to GRUB!\ngrub rescue> "),
    ("bootloader", "  Minimal BASH-like line editing is supported.\ngrub> "),
    ("bootloader", "ISOLINUX 6.04\nCould not find kernel image: linux\nboot: "),
    ("bootloader", "Failed to open \\EFI\\BOOT\\grubx64.efi - Not Found\n"),
    ("bootloader", "start_image() returned Not Found\n"),
    ("bootloader", "L 99 99 99 99 99\n"),
    ("bootloader", "SYSLINUX 6.04\nFailed to load ldlinux.c32\n"),
    ("root-missing", KERNEL + '[    1.000000] VFS: Cannot open root device "vda" or unknown-block(0,0): error -6\n'),
    ("root-missing", KERNEL + "[    1.0] x\n[    1.000000] Kernel panic - not syncing: VFS: Unable to mount root fs\n"),
    ("root-missing", KERNEL + "[    1.000000] Waiting for root device /dev/vda...\n"),
    ("root-missing", KERNEL + "Gave up waiting for root file system device.  Common problems:\n"),
    ("root-missing", KERNEL + "ALERT!  UUID=12-34 does not exist.  Dropping to a shell!\n(initramfs) "),
    ("root-missing", KERNEL + "(initramfs) "),
    ("root-missing", KERNEL + "[    9.000000] dracut-initqueue[300]: Warning: dracut-initqueue timeout - starting\n"),
    ("root-missing", KERNEL + "[    9.000000] dracut Warning: /dev/disk/by-uuid/1 does not exist\ndracut:/# "),
    ("root-missing", KERNEL + "Entering emergency mode. Exit the shell to continue.\n"),
    ("root-missing", KERNEL + "ERROR: device 'UUID=1' not found. Skipping fsck.\n"),
    ("root-missing", KERNEL + "ERROR: Unable to find root device '/dev/vda'.\n"),
    ("root-missing", KERNEL + "initramfs emergency recovery shell launched. Type 'exit' to continue boot\n"),
    ("root-missing", KERNEL + "mount: mounting /dev/vda on /root failed: No such device\n"),
    ("root-missing", KERNEL + "interop-lab: root disk /dev/vdz not found; there are: vda vdb\n"),
    ("root-missing", KERNEL + "interop-lab: /dev/vda is no ext4 file system that can be mounted\n"),
    ("oom", KERNEL + "[    1.000000] Kernel panic - not syncing: System is deadlocked on memory\n"),
    ("oom", KERNEL + USER_SPACE + "[    9.000000] Out of memory: Killed process 100 (mysqld) total-vm:1kB\n"),
    ("hang", KERNEL + "[    9.000000] Kernel panic - not syncing: softlockup: hung tasks\n"),
    ("kernel-panic", KERNEL + "[    9.000000] BUG: unable to handle page fault for address: ffffffff\n"),
    ("kernel-panic", KERNEL + "[    9.000000] kernel BUG at mm/slub.c:306!\n"),
    ("kernel-panic", KERNEL + "[    9.000000] Oops: 0002 [#1] PREEMPT SMP NOPTI\n"),
    ("kernel-panic", KERNEL + "[    9.000000] general protection fault, probably: 0000 [#1] SMP\n[   9.1] x\n"),
    ("kernel-panic", KERNEL + "[    9.000000] divide error: 0000 [#1] SMP\n"),
    ("hang", KERNEL + "[   30.000000] watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [swapper/0:1]\n"),
    ("hang", KERNEL + "[   30.000000] NMI watchdog: Watchdog detected hard LOCKUP on cpu 0\n"),
    ("hang", KERNEL + "[   30.000000] rcu: rcu_sched self-detected CPU stall on CPU\n"),
    ("hang", KERNEL + "[  242.000000] INFO: task modprobe:200 blocked for more than 120 seconds.\n"),
    ("filesystem", KERNEL + "[    5.000000] EXT4-fs error (device vda1): ext4_lookup:1855: inode #2: comm init\n"),
    ("filesystem", KERNEL + "[    5.000000] XFS (vda1): Metadata corruption detected at xfs_agi_verify\n"),
    ("filesystem", KERNEL + "[    5.000000] BTRFS critical (device vda1): corrupt leaf\n"),
    ("filesystem", KERNEL + "[    5.000000] Buffer I/O error on dev vda, logical block 0, async page read\n"),
    ("filesystem", KERNEL + "[    5.000000] EXT4-fs (vda1): Remounting filesystem read-only\n"),
    ("filesystem", KERNEL + "/dev/vda1: UNEXPECTED INCONSISTENCY; RUN fsck MANUALLY.\n"),
    ("filesystem", KERNEL + USER_SPACE + "[\x1b[0;31mFAILED\x1b[0m] Failed to mount /data.\n"),
    ("filesystem", KERNEL + USER_SPACE + "You are in emergency mode. After logging in, type\n"),
    ("network", KERNEL + USER_SPACE + "[FAILED] Failed to start systemd-networkd.service - Network Configuration.\n"),
    ("network", KERNEL + USER_SPACE + "udhcpc: no lease, failing\n" + LOGIN),
    ("network", KERNEL + USER_SPACE + "Timeout occurred while waiting for network connectivity.\n"),
    ("provisioning", KERNEL + USER_SPACE + "[FAILED] Failed to start cloud-init.service - Initial cloud-init job.\n"),
    ("provisioning", KERNEL + USER_SPACE + "[   20.000000] cloud-init[400]: 2026-11-22 - util.py[CRITICAL]: no data\n"),
    ("provisioning", "interop-lab: no seed found\n"),
]


@pytest.mark.parametrize(("name", "text"), EXAMPLES, ids=[f"{i}-{name}" for i, (name, _) in enumerate(EXAMPLES)])
def test_each_kind_of_failure_is_recognised(name: str, text: str) -> None:
    found = triage.triage(text.replace("\n", "\r\n").encode())

    assert found.failure_class == name
    assert found.cause
    assert "{0}" not in found.cause
    assert found.lines


def test_every_row_of_the_table_has_an_example() -> None:
    lines = [triage._plain(line) for _, text in EXAMPLES for line in text.split("\n")]
    texts = [match[1] if (match := patterns.KERNEL_LINE.match(line)) else line for line in lines]

    for row in (*patterns.FAILURES, *patterns.PROGRESS):
        hits = [text for text in (*texts, *_PROGRESS_LINES) if row.pattern.search(text)]
        assert hits, row.pattern.pattern
        # The cheap look at a line must not hide it from the table.
        assert any(patterns.WORTH.search(text) for text in hits), row.pattern.pattern


_PROGRESS_LINES = (
    "db1 login: ",
    "OpenRC 0.55 is starting",
    "Decompressing Linux... Parsing ELF... done.",
    "Loading Linux 6.1 ...",
    "[  OK  ] Reached target Multi-User System.",
)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a later device boots", 'BdsDxe: failed to load Boot0001 "x": Not Found\nBdsDxe: starting Boot0002\n'),
        ("GRUB goes on", "Welcome to GRUB!\nerror: no such device: 1.\n"),
        ("the watchdog of a slow boot", ""),
    ],
)
def test_a_failure_that_the_boot_overcame_is_none(name: str, text: str) -> None:
    lockup = "[   30.000000] watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [swapper/0:1]\n"

    assert judged(text, KERNEL, lockup, USER_SPACE, LOGIN).failure_class == "none"


@pytest.mark.parametrize(
    ("text", "stage"),
    [
        ("", Stage.NOTHING),
        ("\x1b[2J\x1b[H\r\n", Stage.NOTHING),
        (FIRMWARE, Stage.FIRMWARE),
        (FIRMWARE + "Welcome to GRUB!\n", Stage.BOOT_LOADER),
        (FIRMWARE + KERNEL, Stage.KERNEL),
        (FIRMWARE + KERNEL + USER_SPACE, Stage.USER_SPACE),
        (FIRMWARE + KERNEL + USER_SPACE + LOGIN, Stage.LOGIN),
        (FIRMWARE + KERNEL + USER_SPACE + LOGIN + "\n" + FIRMWARE, Stage.FIRMWARE),
        ("interop-lab: ready, a, up 5.1 s\n", Stage.LOGIN),
    ],
)
def test_the_stage_is_that_of_the_last_boot(text: str, stage: Stage) -> None:
    assert triage.stage(text.encode()) is stage


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("[    0.000000] Hypervisor detected: Microsoft Hyper-V", "hyperv"),
        ("[    0.000000] Hypervisor detected: VMware", "vmware"),
        ("[    0.000000] Booting paravirtualized kernel on Xen", "xen"),
        ("Core dump limits :", "uml"),
        ("SeaBIOS (version 1.16.2)", "qemu"),
        ("[    0.000000] some machine", None),
    ],
)
def test_the_hypervisor_is_named(line: str, name: str | None) -> None:
    assert judged(line + "\n").hypervisor == name


def test_escape_sequences_hide_nothing_and_show_nothing() -> None:
    text = "\x1b[2J\x1b[01;01H\x1b]0;title\x07\x1b[1mNo bootable\x1b[0m device.\r\n"

    found = judged(text)

    assert found.failure_class == "firmware"
    assert triage.last_line(text.encode()) == "No bootable device."


def test_the_middle_of_a_huge_log_is_skipped_and_line_numbers_stay_right() -> None:
    filler = "x" * 99 + "\n"
    text = KERNEL + filler * 40_000 + PANIC

    found = judged(text)

    assert found.failure_class == "kernel-panic"
    assert found.lines[0] == 3 + 40_000 + 1


@settings(max_examples=300)
@given(st.binary(max_size=2000))
def test_no_bytes_stop_the_triage(data: bytes) -> None:
    found = triage.triage(data)

    assert found.cause.isprintable()
    assert all(1 <= number <= data.count(b"\n") + 1 for number in found.lines)
    assert all(line.isprintable() for line in triage.last_lines(data))


_WORDS = [text.encode() for _, text in EXAMPLES] + [b"\x1b[", b"[    1.000000] ", b"\r", b"\0", b"\n", b"{0}", b"\xff"]


@settings(max_examples=300)
@given(st.lists(st.sampled_from(_WORDS), max_size=12))
def test_no_mixture_of_real_lines_stops_the_triage(parts: list[bytes]) -> None:
    found = triage.triage(b"".join(parts))

    assert found.failure_class in {
        "none", "firmware", "bootloader", "root-missing", "kernel-panic", "oom", "hang", "filesystem", "network",
        "provisioning", "timeout", "unknown",
    }  # fmt: skip


@pytest.mark.parametrize("piece", [b"\x1b[0;", b"\x1b]", b"[ ", b"0.", b" ", b"error: ", b"Failed to start ", b"L 99"])
def test_a_repeated_piece_costs_no_more_than_its_length(piece: bytes) -> None:
    # A pattern that backtracks would not end within the test's limit.
    triage.triage(piece * (1_000_000 // len(piece)))


# -- errors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("log", "answer", "kind"),
    [
        ("".join((KERNEL, PANIC)), Answer.SILENT, errors.GuestPanicked),
        (FIRMWARE + "No bootable device.\n", Answer.SILENT, errors.FirmwareStopped),
        ("Welcome to GRUB!\ngrub rescue> ", Answer.SILENT, errors.BootLoaderStopped),
        (KERNEL + "(initramfs) ", Answer.SILENT, errors.RootMissing),
        (KERNEL, Answer.SILENT, errors.GuestHung),
        ("", Answer.SILENT, errors.GuestHung),
        (KERNEL + USER_SPACE, Answer.SILENT, errors.GuestHasNoNetwork),
        (KERNEL + USER_SPACE + LOGIN, Answer.SILENT, errors.GuestHasNoNetwork),
        (KERNEL + USER_SPACE + LOGIN, Answer.CLOSED, errors.GuestHasNoSsh),
        (KERNEL + USER_SPACE + LOGIN, Answer.NOISE, errors.GuestHasNoSsh),
        (KERNEL + USER_SPACE + LOGIN, Answer.BANNER, errors.GuestUnreachable),
        (KERNEL + USER_SPACE + LOGIN, Answer.UNREACHABLE, errors.GuestUnreachable),
        (KERNEL + USER_SPACE + "udhcpc: no lease, failing\n", Answer.SILENT, errors.GuestHasNoNetwork),
        (KERNEL + USER_SPACE + "udhcpc: no lease, failing\n", Answer.CLOSED, errors.GuestHasNoSsh),
    ],
)
def test_the_error_tells_what_stopped_the_guest(log: str, answer: Answer, kind: type[errors.GuestError]) -> None:
    data = log.encode()

    error = triage.error_for(triage.triage(data), answer, data, waited_s=90, guest="a/b/c")

    assert type(error) is kind
    assert error.hint


def test_the_error_shows_the_last_lines_without_control_characters() -> None:
    data = (KERNEL + "\x1b[31mlast \x07words\x1b[0m\r\n\r\n").encode()

    error = triage.error_for(triage.triage(data), Answer.SILENT, data, waited_s=90.4, guest="qemu/jeos/pc")

    assert error.what == (
        "qemu/jeos/pc did not come up within 90 s: the console ends while the kernel starts; the console's last lines:"
        "\n  | [    0.000000] Linux version 6.1.0-40-cloud-amd64 (debian-kernel@lists.debian.org) (gcc-12)"
        "\n  | [    0.000000] DMI: QEMU Standard PC (Q35 + ICH9, 2009), BIOS 1.16.2 04/01/2014"
        "\n  | [    0.000000] Hypervisor detected: KVM"
        "\n  | last �words"
    )


def test_the_blame_of_the_failure_is_the_blame_of_the_error() -> None:
    data = b"interop-lab: no seed found\n"

    error = triage.error_for(triage.triage(data), Answer.SILENT, data, waited_s=9, guest="a")

    assert error.blame is Blame.LAB
