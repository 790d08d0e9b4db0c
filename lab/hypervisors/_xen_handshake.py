"""Carries the stream of `xl migrate` from one dom0 to `xl migrate-receive` in another, and stops it where that matters.

tools/xl/xl_migrate.c: the receiver says that it is ready when the domain has arrived whole and waits, paused, while it
stands still at the sender. Until the receiver was told that the domain is its own, the sender can let it go on. So
the disks are brought at that moment, and whatever fails before it leaves the guest where it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from lab.errors import HypervisorRefused
from lab.ssh._pump import Pump

READY = b"domain received, ready to unpause"
BANNER = b"xl migration receiver ready, send binary domain data.\n"
# libxl_dom_suspend.c, at the level of `xl -vvv`.
SUSPENDED = "guest has suspended"
_AHEAD = 1 << 20
_KEPT = 1 << 16
_LONGEST_WORD = 1 << 12


@dataclass
class Words:
    """What an xl complained of or told, line by line, with when it came."""

    text: str = ""
    suspended: float = 0.0  # by `time.monotonic`

    def feed(self, data: bytes) -> None:
        self.text = (self.text + data.decode(errors="replace"))[-_KEPT:]
        if not self.suspended and SUSPENDED in self.text:
            self.suspended = time.monotonic()

    def complaints(self) -> str:
        """The lines that are for people: without what only debugging shows."""
        lines = ("".join(c if c.isprintable() else "?" for c in line).strip() for line in self.text.splitlines())
        told = [line for line in lines if line and not line.startswith(("libxl: debug", "xc: debug", "xc: detail"))]
        return " | ".join(told)[-600:]


@dataclass
class Handshake:
    """One stream from sender to receiver and what comes back."""

    sender: Pump
    receiver: Pump
    deadline: float  # by `time.monotonic`
    carried: int = 0  # bytes
    sent: Words = field(default_factory=Words)
    received: Words = field(default_factory=Words)
    _forth: bytes = b""
    _back: bytes = b""

    def run(self, bring_disks: Callable[[], None]) -> int | None:
        """Carry until both have ended; the sender's exit status. What `bring_disks` raises goes through.

        Raises `HypervisorRefused` when the time is over or the receiver says something else than it should,
        `PeerGone`, `EOFError` when one of the dom0s is lost.
        """
        waits = True  # for the receiver to be ready
        while not self.sender.has_ended():
            moved = self._one_way()
            out, err = self.receiver.take()
            self.received.feed(err)
            self._back += out
            if waits and READY in self._back:
                bring_disks()
                waits = False
            elif waits and len(self._back) > _LONGEST_WORD:
                raise HypervisorRefused(f"the receiver answers what no xl says: {self._back[:100]!r}")
            self._answer(hold=waits)
            if not moved and not out and not err:
                if self.receiver.has_ended() and waits:
                    raise HypervisorRefused(f"xl migrate-receive ended: {self.complaints()}")
                self._rest()
        self.receiver.end_input()
        return self.sender.status()

    def complaints(self) -> str:
        """What the two said on their standard errors."""
        told = [words.complaints() for words in (self.sent, self.received)]
        return " | ".join(one for one in told if one) or "they said nothing"

    def _one_way(self) -> bool:
        if len(self._forth) < _AHEAD:
            out, err = self.sender.take()
            self.sent.feed(err)
            self._forth += out
        if not self._forth:
            return False
        done = self.receiver.send_some(self._forth)
        self._forth = self._forth[done:]
        self.carried += done
        return done > 0

    def _answer(self, *, hold: bool) -> None:
        """Hand on what the receiver says: while `hold`, no more than its greeting."""
        whole = self._back
        if hold:
            whole = BANNER if self._back.startswith(BANNER) else b""
        if whole:
            self.sender.send(whole, self.deadline)
            self._back = self._back[len(whole) :]

    def _rest(self) -> None:
        try:
            self.sender.wait(self.deadline, at_most_s=0.01)
        except TimeoutError:
            raise HypervisorRefused("it did not end in time") from None
