"""Processors of a guest: who is online, who works, and what a check says of those that do not."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from lab.checking import processors

SUM = hashlib.sha256((b"interop-lab\n" * 100_000)[: 1 << 20]).hexdigest()


@dataclass
class FakeGuest:
    """Four processors, of which some are on; each command for one of them makes its timer tick."""

    on: list[int] = field(default_factory=lambda: [0, 1])
    present: str = "0-3"
    says: str = SUM
    ticks: int = 1
    counts: list[int] = field(default_factory=lambda: [5, 5, 5, 5])

    def check(self, *argv: str, **_: Any) -> str:
        match argv:
            case ("cat", "/sys/devices/system/cpu/online"):
                return ",".join(map(str, self.on))
            case ("cat", "/sys/devices/system/cpu/present"):
                return self.present
            case ("cat", "/proc/interrupts"):
                head = " ".join(f"CPU{number}" for number in self.on)
                counts = " ".join(str(self.counts[number]) for number in self.on)
                return f"      {head}\n  0: 1 1 IO-APIC\nLOC: {counts}  Local timer interrupts"
            case ("sh", "-c", script):
                self.on.append(int(script.partition("cpu/cpu")[2].partition("/")[0]))
                return ""
        raise AssertionError(argv)

    def run(self, *argv: str, **_: Any) -> Any:
        number = int(argv[1], 16).bit_length() - 1
        if number not in self.on:
            return SimpleNamespace(status=1, out="", err="taskset: can't set affinity")
        self.counts[number] += self.ticks
        return SimpleNamespace(status=0, out=f"{self.says}  -", err="")


def test_the_timers_of_xen_count_as_those_of_the_processor() -> None:
    table = """           CPU0       CPU1
  0:       5743          0  xen-percpu    -virq      timer0
  1:          3          0  xen-percpu    -ipi       resched0
  7:          0        812  xen-percpu    -virq      timer1
LOC:          0          0   Local timer interrupts
"""
    guest: Any = SimpleNamespace(check=lambda *argv: table)

    assert processors.ticks(guest) == {0: 5743, 1: 812}


def test_a_kernel_that_counts_no_timer_is_told() -> None:
    guest: Any = SimpleNamespace(check=lambda *argv: "     CPU0\n  1:  3  IO-APIC  ttyS0\n")

    with pytest.raises(AssertionError, match="does not count timer interrupts"):
        processors.ticks(guest)


@pytest.mark.parametrize(("text", "numbers"), [("0", (0,)), ("0-3", (0, 1, 2, 3)), ("0,2-3,7", (0, 2, 3, 7)), ("", ())])
def test_the_kernels_lists_of_processors_are_read(text: str, numbers: tuple[int, ...]) -> None:
    guest: Any = SimpleNamespace(check=lambda *argv: text)

    assert processors.online(guest) == numbers


def test_what_the_guest_left_off_is_switched_on_and_counted() -> None:
    guest: Any = FakeGuest()

    assert processors.switch_on(guest, patience_s=0.0) == 2
    assert processors.online(guest) == (0, 1, 2, 3)
    assert processors.switch_on(guest, patience_s=0.0) == 0


def test_a_processor_that_computes_and_ticks_works() -> None:
    guest: Any = FakeGuest()

    processors.assert_works(guest, 1)


@pytest.mark.parametrize(
    ("number", "changed", "said"),
    [
        (3, {}, "nothing runs on processor 3: taskset: can't set affinity"),
        (1, {"says": "00"}, "processor 1 computed 00 from known data; right is "),
        (1, {"ticks": 0}, "no timer interrupt on processor 1 while it worked"),
    ],
)
def test_a_processor_that_does_not_work_fails_with_what_it_did(number: int, changed: dict[str, Any], said: str) -> None:
    guest: Any = FakeGuest(**changed)

    with pytest.raises(AssertionError, match=said):
        processors.assert_works(guest, number)
