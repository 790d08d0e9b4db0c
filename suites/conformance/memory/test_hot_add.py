"""memory.hot_add: memory that comes while the guest runs becomes usable."""

from __future__ import annotations

import secrets

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
MOUNT = "/tmp/lab-memory"

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


@check("memory.hot_add", needs=(Capability.MEMORY_HOTPLUG,), spoils=True, timeout_s=500)
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
    _assert_holds(guest, round(free + size / 2))


def _assert_holds(guest: Guest, mib: int) -> None:
    """More is written than the guest had room for before, and read back."""
    seed = secrets.token_hex(16)
    script = f"""
    set -e
    mkdir -p {MOUNT}
    mount -t tmpfs -o size={mib + 8}m lab {MOUNT}
    trap 'umount {MOUNT}; rmdir {MOUNT}' EXIT
    yes {seed} | head -c 16777216 >{MOUNT}/piece
    for number in $(seq {(mib - 16) // 16}); do cp {MOUNT}/piece {MOUNT}/$number; done
    for number in $(seq {(mib - 16) // 16}); do cmp {MOUNT}/piece {MOUNT}/$number || exit 1; done
    df -m {MOUNT} | tail -n 1
    """
    result = guest.run("sh", "-c", script, timeout_s=300)
    assert result.status == 0, f"{mib} MiB, more than there was before, do not hold what is written: {result.err}"
    used = int(result.out.split()[2])
    assert used >= mib - 32, f"{mib} MiB were to be written, the guest counts {used}"


def _mib(guest: Guest, name: str) -> float:
    return int(guest.check("grep", f"^{name}:", "/proc/meminfo").split()[1]) / 1024
