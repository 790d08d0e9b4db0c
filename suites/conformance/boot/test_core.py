"""boot.core: the guest boots to a usable state."""

from __future__ import annotations

from lab.suite import Guest, Hypervisor, Machine, MachineState, Measurements, check, linux, not_applicable

# Kernel, page tables and reserved ranges take their share before MemTotal is counted
# (Documentation/filesystems/proc.rst): about 50 MiB of 512 in the lab's smallest guests, 16 more with UEFI.
MEMORY_LOST_SHARE = 0.06
MEMORY_LOST_MIB = 64
# Where memory can be plugged in beyond 4 GiB of addresses, the kernel keeps bounce buffers for devices that reach no
# further (kernel/dma/swiotlb.c, IO_TLB_DEFAULT_SIZE).
BOUNCE_BUFFERS_MIB = 64

ERROR = 3  # syslog(2): levels 0 to 3 are errors

# Lines that the kernel logs as errors and that say nothing of guest or hypervisor; each with its reason.
HARMLESS = (
    # The TPM keeps sums of a kind that the guest's kernel has no program for; it measures with the others
    # (security/integrity/ima/ima_crypto.c, ima_init_crypto).
    "ima: Can not allocate sha",
    # A note of Debian's kernel configuration about itself (security/selinux/hooks.c, checkreqprot_set).
    "SELinux: CONFIG_SECURITY_SELINUX_CHECKREQPROT_VALUE is non-zero",
    "SELinux: https://github.com/SELinuxProject/selinux-kernel/wiki/DEPRECATE-checkreqprot",
    # User-Mode Linux without the `iomem=` argument, which hands a file in as memory and which nobody asked for.
    "mmapper_init - find_iomem failed",
)
# The kernel gives the timer a few of its ticks to prove itself (arch/x86/kernel/apic/io_apic.c, check_timer); a
# software-emulated processor that waits for a place on a busy host misses them, and the next try succeeds.
HARMLESS_UNDER_TCG = ("..MP-BIOS bug: 8254 timer not connected to IO-APIC",)
# A PV domain has no local APICs, and Linux's stand-ins (arch/x86/xen/apic.c) have other numbers than its CPUID; it
# complains of each further processor and takes its own numbers: "x86/cpu: Deal with broken firmware (VMWare/XEN)".
HARMLESS_IN_XEN_PV = ("APIC id mismatch", "APIC ID mismatch")
# A PVH domain has a processor, memory and Xen's own devices: no IO-APIC, no PCI, and no chipset where the ACPI tables
# that it shares with HVM (xen, tools/libacpi/static_tables.c, GPE0) place one, so that events without a handler read as
# pending; Linux says so once and disables them.
HARMLESS_IN_XEN_PVH = (
    "ACPI: No IOAPIC entries present",
    "PCI: Fatal: No config space access function found",
    "ACPI: OSL: SCI (ACPI GSI 9) not registered",
    "ACPI Error: No handler or method for GPE ",
)
HARMLESS_ON = {"xenpv": HARMLESS_IN_XEN_PV, "xenpvh": HARMLESS_IN_XEN_PVH}


@check("boot.core", level="smoke", defect=True)
def test_hypervisor_says_running(guest: Guest, machine: Machine) -> None:
    """Catches a hypervisor that reports another power state than the guest, which answers, is in."""
    assert guest.check("echo", "here") == "here"
    assert machine.state() is MachineState.RUNNING, f"the guest answers and the hypervisor says {machine.state()}"


@check("boot.core", level="smoke", defect=True)
def test_user_space_started_completely(guest: Guest) -> None:
    """Catches services that failed to start and start-up that never ends."""
    linux.settle(guest)
    if guest.run("test", "-d", "/run/systemd/system").status == 0:
        state = guest.run("systemctl", "is-system-running").out
        failed = guest.check("systemctl", "list-units", "--failed", "--plain", "--no-legend", "--no-pager")
        assert state == "running", f"systemd says {state!r}; failed units: {failed or 'none'}"
    elif linux.has_tool(guest, "rc-status"):
        crashed = guest.run("rc-status", "--crashed").out
        assert not crashed.strip(), f"crashed services: {crashed}"
    else:
        first = guest.check("cat", "/proc/1/comm")
        assert first == "init", f"process 1 is {first!r}, not init"


@check("boot.core", level="smoke", defect=True)
def test_kernel_log_has_no_errors(guest: Guest, machine: Machine, hypervisor: Hypervisor) -> None:
    """Catches drivers that complain, broken firmware tables, oopses and I/O errors while booting."""
    linux.settle(guest)
    lines = linux.kernel_log(guest)
    assert lines, "the kernel's log is empty"
    harmless = HARMLESS + (HARMLESS_UNDER_TCG if hypervisor.facts().accelerator == "tcg" else ())
    harmless += HARMLESS_ON.get(machine.spec.profile.chipset, ())
    errors = [line.text for line in lines if line.level <= ERROR and not any(text in line.text for text in harmless)]
    assert not errors, f"{len(errors)} error lines, the first: {'; '.join(errors[:5])}"


@check("boot.core", level="smoke", defect=True)
def test_kernel_is_not_tainted(guest: Guest) -> None:
    """Catches out-of-tree, unsigned or force-loaded modules, machine checks and earlier oopses."""
    tainted = int(guest.check("cat", "/proc/sys/kernel/tainted"))
    # Bit numbers are those of Documentation/admin-guide/tainted-kernels.rst.
    bits = [str(bit) for bit in range(tainted.bit_length()) if tainted >> bit & 1]
    assert tainted == 0, f"the kernel is tainted: {tainted} (bits {', '.join(bits)})"


@check("boot.core", level="smoke", defect=True)
def test_root_takes_writes(guest: Guest) -> None:
    """Catches a root file system that came up read-only, is full, or loses what was written."""
    text = "interop-lab root write"
    script = f"""
    set -e
    echo '{text}' >/root/lab-root-write
    sync
    echo 3 >/proc/sys/vm/drop_caches
    cat /root/lab-root-write
    rm /root/lab-root-write
    """
    assert linux.sh(guest, script) == text


@check("boot.core", level="smoke", defect=True)
def test_memory_is_what_was_asked(guest: Guest, machine: Machine, measured: Measurements) -> None:
    """Catches a machine that got less (or more) memory than its profile asks for."""
    asked, most = machine.spec.profile.memory_mib, machine.spec.profile.max_memory_mib
    for line in guest.check("cat", "/proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            total = int(line.split()[1]) / 1024
            break
    else:
        raise AssertionError("/proc/meminfo has no MemTotal")
    measured.add("mem_total", total, "MiB")
    least = asked * (1 - MEMORY_LOST_SHARE) - MEMORY_LOST_MIB - (BOUNCE_BUFFERS_MIB if most > asked else 0)
    assert least <= total <= asked, f"asked for {asked} MiB, the guest has {total:.0f} (expected at least {least:.0f})"


@check("boot.core", cold=True, defect=True)
def test_console_shows_the_whole_boot(guest: Guest, machine: Machine) -> None:
    """Catches a console that stops before user space or shows nothing: then no failed boot could be explained."""
    linux.settle(guest)
    log = machine.console().decode(errors="replace")
    start = log.rfind("Linux version ")
    assert start >= 0, f"the console log of {len(log)} characters has no line of a starting kernel"
    boot = log[start:]
    reached = "login:" in boot or "interop-lab: ready" in boot
    assert reached, f"the console shows no sign of user space; its end: {boot[-300:]!r}"


@check("boot.core", cold=True, defect=True)
def test_root_was_mounted_clean(guest: Guest) -> None:
    """Catches an image or a clone whose file system was torn: the kernel says so when it mounts it."""
    mounted = [line.text for line in linux.kernel_log(guest) if "EXT4-fs" in line.text or "XFS" in line.text]
    if not mounted:
        not_applicable("the kernel says nothing about this kind of root file system")
    torn = [text for text in mounted if "recover" in text or "orphan" in text or "error" in text.lower()]
    assert not torn, f"the root file system was not clean: {'; '.join(torn)}"
