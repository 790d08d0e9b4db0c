"""A guest that is moved while it works: it counts without a break to a partner over one TCP connection.

What the partner heard shows whether the connection held, whether a number is missing or twice there, how long the
guest was silent, and what the move did to its clocks. Nothing here judges how long anything took.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from lab import waiting

NETWORK = "way"
HERE, THERE = "10.213.78.1", "10.213.78.2"  # the partner, the traveller
MARKER_MIB = 8
_HEARD_S = 60.0  # for something to come after a move, on a busy machine

Sh = Callable[[str], str]
Record = Callable[[str, object], None]

# The partner writes down its own time with each line, without starting a program for it. What it would say to the guest
# must not end, or busybox's nc closes the connection.
_LISTEN = """
mkfifo {folder}/silence; exec 9<>{folder}/silence
nc -l -p {port} <&9 2>/dev/null | while read -r line; do
  read -r up _ </proc/uptime; echo "$up $line"
done >{folder}/heard; touch {folder}/ended
"""
# The guest's time since its boot, and its time of the day, of which busybox's adjtimex alone knows fractions.
_SPEAK = """
i=0; while [ ! -e {folder}/stop ]; do
  i=$((i + 1)); read -r up _ </proc/uptime; echo "$i $up" $(adjtimex | grep time.tv_)
  echo "$i" >>{folder}/said; sleep 0.05
done | nc {here} {port} >/dev/null 2>&1; touch {folder}/ended
"""


@dataclass(frozen=True)
class Heard:
    """One line at the partner: when it came by the partner's clock, its number, the guest's two clocks (all s)."""

    at: float
    number: int
    up: float
    day: float


@dataclass(frozen=True)
class Told:
    """What a move did to a guest, as its partner and its own clocks tell it."""

    longest_gap_s: float  # of silence, by the partner's clock
    clock_jump_s: float  # the largest step of the time of the day beside the time since boot
    lines: int


class Traveller:
    """The workload in one guest (`sh` runs there), and its partner (`partner`)."""

    def __init__(self, sh: Sh, partner: Sh) -> None:
        self._sh, self._partner = sh, partner
        token = secrets.token_hex(4)
        self._folder = f"/run/traveller-{token}"
        port = 20000 + secrets.randbelow(20000)
        for run in (partner, sh):
            run(f"mkdir -p {self._folder}")
        self._marker = sh(
            f"dd if=/dev/urandom of={self._folder}/marker bs=1048576 count={MARKER_MIB} 2>/dev/null; "
            f"sha256sum {self._folder}/marker"
        )
        self._boot = sh("cat /proc/sys/kernel/random/boot_id")
        words = {"folder": self._folder, "port": port, "here": HERE}
        partner(f"({_LISTEN.format(**words)}) </dev/null >/dev/null 2>&1 &")
        listens = f"netstat -ltn 2>/dev/null | grep -q ':{port} ' || ss -ltn 2>/dev/null | grep -q ':{port} '"
        waiting.until(lambda: partner(f"({listens}) && echo yes || :").strip() == "yes", what="ears", timeout_s=30)
        sh(f"({_SPEAK.format(**words)}) </dev/null >/dev/null 2>&1 &")
        self.goes_on()

    def heard(self) -> Sequence[Heard]:
        """What came so far; a line that is not whole yet is left out."""
        lines = self._partner(f"cat {self._folder}/heard; echo .").split("\n")[:-1]
        return [parsed(line) for line in lines]

    def goes_on(self) -> None:
        """Wait until the partner hears more than it had. Raises `WaitedTooLong`."""
        before = len(self.heard())
        waiting.until(lambda: len(self.heard()) > before + 3, what="the guest to be heard", timeout_s=_HEARD_S)

    def arrived(self, record: Record) -> Told:
        """End the workload and judge it: nothing is lost, no clock went back, memory and connection are the same."""
        self.goes_on()
        same = self._sh(f"sha256sum {self._folder}/marker")
        assert same == self._marker, "the memory of the guest is not what it was"
        assert self._sh("cat /proc/sys/kernel/random/boot_id") == self._boot, "the guest booted"
        self._sh(f"touch {self._folder}/stop; while [ ! -e {self._folder}/ended ]; do sleep 0.2; done")
        said = self._sh(f"cat {self._folder}/said").split()
        ended = f"if [ -e {self._folder}/ended ]; then echo yes; fi"
        waiting.until(lambda: self._partner(ended), what="the connection to end", timeout_s=_HEARD_S)
        heard = self.heard()
        for run in (self._sh, self._partner):
            run(f"rm -rf {self._folder}")
        assert [int(number) for number in said] == list(range(1, len(said) + 1)), "the guest lost count"
        came = [line.number for line in heard]
        assert came == list(range(1, len(said) + 1)), f"{len(said)} were said, and heard were {came[:3]} to {came[-3:]}"
        told = judged(heard)
        record("longest_gap_s", round(told.longest_gap_s, 2))
        record("clock_jump_s", round(told.clock_jump_s, 2))
        return told


def parsed(line: str) -> Heard:
    """`12.30 7 45.60 time.tv_sec: 1800000000 time.tv_usec: 250000`. Raises `ValueError`."""
    at, number, up, _, seconds, _, microseconds = line.split()
    return Heard(float(at), int(number), float(up), int(seconds) + int(microseconds) / 1e6)


def judged(heard: Sequence[Heard]) -> Told:
    """Raises `AssertionError` when a clock of the guest went back."""
    steps = list(pairwise(heard))
    assert steps, "nothing was heard"
    for before, after in steps:
        assert after.up >= before.up, f"the guest's time since boot went from {before.up} back to {after.up}"
        assert after.day >= before.day, f"the guest's time of the day went from {before.day} back to {after.day}"
    return Told(
        longest_gap_s=max(after.at - before.at for before, after in steps),
        clock_jump_s=max(abs((after.day - before.day) - (after.up - before.up)) for before, after in steps),
        lines=len(heard),
    )


def address(sh: Sh, mac: str, address: str) -> None:
    """Give the card of that hardware address an address, when the guest has it. Raises `WaitedTooLong`."""
    script = f"""
for card in /sys/class/net/*; do
  [ "$(cat $card/address)" != {mac} ] || {{
    ip link set ${{card##*/}} up && ip address add {address}/24 dev ${{card##*/}} && echo there; }}
done; :"""
    waiting.until(lambda: "there" in sh(script), what="the guest to see its card", timeout_s=60)
