"""The processors of a guest: which are online, and whether each of them works."""

from __future__ import annotations

import hashlib
import time

from lab import waiting
from lab.checking import linux
from lab.contracts import HotplugsCpus
from lab.guests.guest import Guest

BY_ITSELF_S = 15.0
"""How long a guest has to switch on by itself what was plugged in."""

_SEEN_WITHIN_S = 60.0
_WORK_MIB = 1
_LINE = "interop-lab\n"
_SIZE = _WORK_MIB << 20
_SUM = hashlib.sha256((_LINE * (_SIZE // len(_LINE) + 1)).encode()[:_SIZE]).hexdigest()


def online(guest: Guest) -> tuple[int, ...]:
    """The numbers of the processors that the kernel runs on."""
    return _numbers(guest.check("cat", "/sys/devices/system/cpu/online"))


def present(guest: Guest) -> tuple[int, ...]:
    """The numbers of the processors that the kernel knows to be there, used or not."""
    return _numbers(guest.check("cat", "/sys/devices/system/cpu/present"))


def plug(guest: Guest, plugs: HotplugsCpus, count: int) -> None:
    """Plug in up to that many; returns when the guest sees them. Raises `WaitedTooLong` when it does not."""
    plugs.set_vcpus(count)
    waiting.until(
        lambda: len(present(guest)) == count, what=f"the guest to see {count} processors", timeout_s=_SEEN_WITHIN_S
    )


def switch_on(guest: Guest, *, patience_s: float = BY_ITSELF_S) -> int:
    """Give the guest time to use what is present; then switch the rest on as an operator would: how many those were."""
    deadline = time.monotonic() + patience_s
    while (idle := set(present(guest)) - set(online(guest))) and time.monotonic() < deadline:
        waiting.pause(0.5)
    for number in sorted(idle):
        linux.sh(guest, f"echo 1 >/sys/devices/system/cpu/cpu{number}/online")
    return len(idle)


def ticks(guest: Guest) -> dict[int, int]:
    """Timer interrupts of each online processor. Raises `AssertionError` when the kernel does not count them.

    The local timer's, and Xen's timers in its place, each an event of its own (drivers/xen/events/events_base.c).
    """
    lines = guest.check("cat", "/proc/interrupts").splitlines()
    numbers = [int(word.removeprefix("CPU")) for word in lines[0].split()]
    timers = []
    for line in lines[1:]:
        name, _, rest = line.strip().partition(":")
        words = rest.split()
        if name == "LOC" or ("xen-percpu" in words and words[-1].startswith("timer")):
            timers.append([int(word) for word in words[: len(numbers)]])
    assert timers, "/proc/interrupts does not count timer interrupts"
    return {number: sum(counts) for number, *counts in zip(numbers, *timers, strict=True)}


def assert_works(guest: Guest, number: int) -> None:
    """A program that may run nowhere else computes right there, and the processor's timer ticks meanwhile."""
    before = ticks(guest).get(number, 0)
    work = f"yes interop-lab | head -c {_SIZE} | sha256sum"
    result = guest.run("taskset", hex(1 << number), "sh", "-c", work, timeout_s=110)
    assert result.status == 0, f"nothing runs on processor {number}: {result.err}"
    said = result.out.split()[0]
    assert said == _SUM, f"processor {number} computed {said} from known data; right is {_SUM}"
    assert ticks(guest).get(number, 0) > before, f"no timer interrupt on processor {number} while it worked"


def _numbers(text: str) -> tuple[int, ...]:
    found: list[int] = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return tuple(found)
