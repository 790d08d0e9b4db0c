"""memory.hot_add: memory that comes while the guest runs becomes usable."""

from __future__ import annotations

from lab.suite import (
    Capability,
    Guest,
    HotplugsMemory,
    Machine,
    Measurements,
    check,
    linux,
    not_applicable,
    waiting,
    who_can,
)

NAME = "hot-memory"
ADDED_MIB = 384
KEPT_SHARE = 0.9  # the kernel's tables for the new pages take 1.6 % of them, and 64 MiB is what a guest may lose
WITHIN_S = 60.0
FILLED_WITHIN_S = 400.0
MOUNT = "/tmp/lab-memory"
PIECES, PIECE_MIB = 6, 8

# Switches on what the guest left off (Documentation/admin-guide/mm/memory-hotplug.rst); prints how many blocks.
SWITCH_ON = """
count=0
for state in /sys/devices/system/memory/memory*/state; do
  read -r now <"$state"
  [ "$now" = offline ] || continue
  echo online >"$state"
  count=$((count + 1))
done
echo $count
"""


@check("memory.hot_add", needs=(Capability.MEMORY_HOTPLUG,), spoils=True, timeout_s=700, defect=True)
def test_added_memory_becomes_usable(guest: Guest, machine: Machine, measured: Measurements) -> None:
    """Catches memory that never appears, cannot be switched on, or does not keep what is written to it."""
    profile = machine.spec.profile
    room = profile.max_memory_mib - profile.memory_mib
    if room <= 0:
        not_applicable("the profile has no room for further memory")
    linux.settle(guest)
    size = min(ADDED_MIB, room)
    total, free = _mib(guest, "MemTotal"), _mib(guest, "MemAvailable")
    who_can(machine, HotplugsMemory).attach_memory(NAME, size)
    by_hand = 0

    def grew() -> bool:
        nonlocal by_hand
        by_hand += int(linux.sh(guest, SWITCH_ON))
        return _mib(guest, "MemTotal") >= total + size * KEPT_SHARE

    waiting.until(grew, what=f"the guest to have {size} MiB more than {total:.0f}", timeout_s=WITHIN_S)
    measured.add("switched_on_by_hand", by_hand, "blocks", better="lower")
    grown = _mib(guest, "MemTotal") - total
    measured.add("grown", grown, "MiB")
    assert grown <= size, f"attached {size} MiB, and the guest has {grown:.0f} more"
    _assert_holds(guest, round(free + size / 3))


def _assert_holds(guest: Guest, mib: int) -> None:
    """More is written than the guest had room for before; what came last, into the new memory, is read back."""
    script = f"""
    set -e
    mkdir -p {MOUNT}
    mount -t tmpfs -o size={mib + 8}m lab {MOUNT}
    trap 'umount {MOUNT}; rmdir {MOUNT}' EXIT
    dd if=/dev/zero of={MOUNT}/old bs=1048576 count={mib - PIECES * PIECE_MIB} 2>/dev/null
    dd if=/dev/urandom of={MOUNT}/1 bs=1048576 count={PIECE_MIB} 2>/dev/null
    for number in $(seq 2 {PIECES}); do cp {MOUNT}/1 {MOUNT}/$number; done
    df -m {MOUNT} | tail -n 1
    for number in $(seq {PIECES}); do md5sum <{MOUNT}/$number; done
    """
    result = guest.run("sh", "-c", script, timeout_s=FILLED_WITHIN_S)
    assert result.status == 0, f"{mib} MiB, more than there was before, do not hold what is written: {result.err}"
    usage, *sums = result.out.splitlines()
    used = int(usage.split()[2])
    assert used >= mib - PIECE_MIB, f"{mib} MiB were to be written, the guest counts {used}"
    assert len(sums) == PIECES, f"{PIECES} pieces were written, {len(sums)} were read"
    assert len(set(sums)) == 1, f"the same {PIECE_MIB} MiB were written {PIECES} times and read back as {sums}"


def _mib(guest: Guest, name: str) -> float:
    return int(guest.check("grep", f"^{name}:", "/proc/meminfo").split()[1]) / 1024
