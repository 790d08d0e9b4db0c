"""The contract suite for what a running machine can be given and loses again: processors, memory; and its watchdog."""

from __future__ import annotations

import pytest

from lab import waiting
from lab.contracts import Capability, HotplugsCpus, HotplugsMemory, Hypervisor, Watches
from lab.errors import HypervisorRefused, NotSupported
from lab.testing.contract import Booted, HostRefuses, capable, proves

_SEEN_S = 60.0  # for a slow guest to notice what was done to it
_MODULE_MIB = 128
_FED_S = 4.0  # twice the time after which the watchdog fires

# Whether a new processor or a new block of memory is used is the guest's own choice (a rule of udev); these make it.
_USE_PROCESSORS = (
    "for new in /sys/devices/system/cpu/cpu*/online; do [ ! -e $new ] || [ $(cat $new) = 1 ] || echo 1 >$new; done"
)
_USE_MEMORY = (
    "for new in /sys/devices/system/memory/memory*/state; do "
    "[ ! -e $new ] || [ $(cat $new) = online ] || echo online_movable >$new; done"
)
_PROCESSORS = "grep -c ^processor /proc/cpuinfo"
_MEMORY_KIB = "sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo"

# Without a driver in the guest: the registers of Intel's 6300ESB, as its datasheet (300641-004, chapter 15) has them.
# Two stages of one second each; 0x80 and 0x86 open a register for one write.
_FIND_6300ESB = """
for card in /sys/bus/pci/devices/*; do
  [ $(cat $card/vendor)$(cat $card/device) = 0x80860x25ab ] && [ ! -e $card/driver ] && echo $card
done; true
"""
_OPEN = "devmem $(($base + 12)) 16 0x80; devmem $(($base + 12)) 16 0x86; "
_BASE = "card={card}; base=$(cut -d' ' -f1 <$card/resource | head -n 1); "
_ARM = (
    "echo 1 >$card/enable; "
    + _OPEN
    + "devmem $base 32 1000; "
    + _OPEN
    + "devmem $(($base + 4)) 32 1000; "
    + _OPEN
    + "devmem $(($base + 12)) 16 0x100; "
    + "printf '\\002' | dd of=$card/config bs=1 seek=104 count=1 conv=notrunc 2>/dev/null"
)
_FEED = _OPEN + "devmem $(($base + 12)) 16 0x100"
_DISARM = "printf '\\000' | dd of=$card/config bs=1 seek=104 count=1 conv=notrunc 2>/dev/null"


class GrowthContract:
    """Behaviour tests of hot plug beyond disks and cards."""

    # -----------------------------------------------------------------------------------------------------
    # Processors

    @proves(Capability.CPU_HOTPLUG)
    def test_processors_come_compute_and_go(self, hypervisor: Hypervisor, booted: Booted) -> None:
        """Where the driver says why they cannot go (`NotSupported`), they must stay as they are."""
        machine: HotplugsCpus = capable(hypervisor, booted.machine, Capability.CPU_HOTPLUG)
        profile = booted.machine.spec.profile
        if profile.max_vcpus <= profile.vcpus:
            raise HostRefuses(f"profile {profile.name} leaves no room for more processors")
        boot = booted.boot_id()

        machine.set_vcpus(profile.max_vcpus)
        try:
            waiting.until(
                lambda: int(booted.sh(f"{_USE_PROCESSORS}; {_PROCESSORS}")) == profile.max_vcpus,
                what="the guest to use the processors",
                timeout_s=_SEEN_S,
            )
            for number in range(profile.vcpus, profile.max_vcpus):
                # proc(5), /proc/PID/stat, field 39: the processor that ran it last.
                assert booted.sh(f"taskset {1 << number:x} cut -d' ' -f39 /proc/self/stat") == str(number)
            assert machine.vcpus() == profile.max_vcpus
            with pytest.raises(HypervisorRefused):
                machine.set_vcpus(profile.max_vcpus + 1)
        finally:
            left = _take_out(machine, profile.vcpus)

        assert machine.vcpus() == left
        assert int(booted.sh(_PROCESSORS)) == left
        assert booted.boot_id() == boot
        if left != profile.vcpus:
            booted.machine.destroy()  # no longer what the other tests expect; they get a new one

    # -----------------------------------------------------------------------------------------------------
    # Memory

    @proves(Capability.MEMORY_HOTPLUG)
    def test_memory_comes_and_goes(self, hypervisor: Hypervisor, booted: Booted) -> None:
        machine: HotplugsMemory = capable(hypervisor, booted.machine, Capability.MEMORY_HOTPLUG)
        profile = booted.machine.spec.profile
        if profile.max_memory_mib < profile.memory_mib + _MODULE_MIB:
            raise HostRefuses(f"profile {profile.name} leaves no room for more memory")
        before, boot = int(booted.sh(_MEMORY_KIB)), booted.boot_id()

        def more_kib() -> int:
            return int(booted.sh(f"{_USE_MEMORY}; {_MEMORY_KIB}")) - before

        machine.attach_memory("contract", _MODULE_MIB)
        try:
            waiting.until(
                lambda: more_kib() >= _MODULE_MIB * 1000, what="the guest to use the memory", timeout_s=_SEEN_S
            )
            assert more_kib() <= _MODULE_MIB * 1024
            with pytest.raises(HypervisorRefused):
                machine.attach_memory("beyond", (profile.max_memory_mib // _MODULE_MIB + 1) * _MODULE_MIB)
        finally:
            machine.detach_memory("contract")

        waiting.until(lambda: more_kib() <= 1024, what="the guest to have less memory", timeout_s=_SEEN_S)
        assert booted.boot_id() == boot
        with pytest.raises(HypervisorRefused, match="contract"):
            machine.detach_memory("contract")

    # -----------------------------------------------------------------------------------------------------
    # Watchdog

    @proves(Capability.WATCHDOG)
    def test_a_watchdog_fires_when_nobody_feeds_it_and_only_then(self, hypervisor: Hypervisor, booted: Booted) -> None:
        machine: Watches = capable(hypervisor, booted.machine, Capability.WATCHDOG)
        arm, feed, disarm = _handles(booted)
        before, boot = machine.watchdog_fired(), booted.boot_id()

        booted.sh(arm)
        try:
            booted.sh(f"end=$(($(date +%s) + {_FED_S:.0f})); while [ $(date +%s) -lt $end ]; do {feed}; done")
            assert machine.watchdog_fired() == before, "it fired although it was fed"
            waiting.until(lambda: machine.watchdog_fired() > before, what="the watchdog to fire", timeout_s=_SEEN_S)
        finally:
            booted.sh(disarm)

        assert booted.boot_id() == boot, "the guest was reset, and only counting was promised"


def _take_out(machine: HotplugsCpus, count: int) -> int:
    """How many processors the machine then must have."""
    before = machine.vcpus()
    try:
        machine.set_vcpus(count)
    except NotSupported:
        return before
    return count


def _handles(booted: Booted) -> tuple[str, str, str]:
    """Scripts of the guest that start, feed and stop its watchdog; skips where it has neither driver nor devmem."""
    card = booted.sh(_FIND_6300ESB).split()
    if card and booted.sh("command -v devmem || true"):
        base = _BASE.format(card=card[0])
        return base + _ARM, base + _FEED, base + _DISARM
    booted.sh("modprobe i6300esb 2>/dev/null || modprobe iTCO_wdt 2>/dev/null || true")
    if booted.sh("test -c /dev/watchdog && command -v busybox || true"):
        # Fed by a process that keeps it open; stopped, that process feeds no more, and ended it disarms.
        start = "busybox watchdog -F -T 2 -t 1 /dev/watchdog >/dev/null 2>&1 & echo $! >/run/contract-watchdog"
        pid = "$(cat /run/contract-watchdog)"
        return start, f"kill -CONT {pid}; sleep 1; kill -STOP {pid}", f"kill -CONT {pid}; kill -TERM {pid}"
    pytest.skip("the guest has neither a driver for the machine's watchdog nor devmem to do without")
