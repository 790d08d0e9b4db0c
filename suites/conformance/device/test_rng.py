"""device.rng: the guest has a source of entropy."""

from __future__ import annotations

from lab.suite import Guest, check, linux, unsupported, waiting

CURRENT = "/sys/class/misc/hw_random/rng_current"
WITHIN_S = 20.0
# Entropy devices without driver. Virtual I/O Device (VIRTIO) 1.2, section 5: type 4 is the entropy device.
_IDLE = r"""
for device in /sys/bus/virtio/devices/*; do
  read -r kind <"$device/device" || continue
  [ "$kind" != 0x0004 ] || [ -e "$device/driver" ] || echo "${device##*/}"
done 2>/dev/null
"""


@check("device.rng", defect=True)
def test_entropy_device_delivers(guest: Guest) -> None:
    """Catches an entropy device that is not offered, has no driver, or gives the same bytes again."""
    linux.settle(guest)
    current = guest.run("cat", CURRENT).out
    if current in ("", "none"):
        idle = linux.sh(guest, _IDLE)
        assert not idle, f"no driver took the entropy device {idle}"
        unsupported("the machine has no entropy device that the guest's kernel knows")
    # Device number 10, 183 (Documentation/admin-guide/devices.txt); a small guest may not have made the node.
    read = "[ -c /dev/hwrng ] || mknod /dev/hwrng c 10 183; dd if=/dev/hwrng bs=64 count=1 2>/dev/null | od -An -v -tx1"
    first, second = (linux.sh(guest, read, timeout_s=WITHIN_S).split() for _ in range(2))
    assert len(first) >= 16, f"{current} gave {len(first)} bytes of 64"
    assert first != second, f"{current} gave the same bytes twice: {' '.join(first)}"
    assert len(set(first)) > 4, f"{current} gives no chance: {' '.join(first)}"


@check("device.rng", level="smoke", defect=True)
def test_random_numbers_do_not_wait(guest: Guest) -> None:
    """Catches a guest whose random numbers are not ready: SSH, TLS and boot would hang in getrandom(2)."""
    read = "dd if=/dev/random bs=64 count=1 2>/dev/null | od -An -v -tx1"
    seen = [linux.sh(guest, read, timeout_s=WITHIN_S).split() for _ in range(2)]
    assert [len(read) for read in seen] == [64, 64], f"/dev/random gave {[len(read) for read in seen]} of 64 bytes"
    assert seen[0] != seen[1], "/dev/random gave the same bytes twice"
    waiting.until(
        lambda: int(guest.check("cat", "/proc/sys/kernel/random/entropy_avail")) >= 128,
        what="128 bits of entropy, what the kernel asks for",
        timeout_s=WITHIN_S,
    )
