"""The console of a machine for a person: all of it so far, and what comes, without what could deceive a reader."""

from __future__ import annotations

from collections.abc import Iterator

from lab import waiting
from lab.contracts import Machine, MachineState
from lab.results import plain

PAUSE_S = 0.5
_ANCHOR_BYTES = 4096


def read(machine: Machine, *, follow: bool, raw: bool) -> Iterator[bytes]:
    """The console so far; with `follow` also what comes, until the machine does not run any more.

    Whole lines only, as long as more may come: an escape sequence may be cut in two between pieces.
    """
    seen = b""
    pending = b""
    while True:
        is_up = machine.state() in (MachineState.RUNNING, MachineState.PAUSED)
        now = machine.console()
        pending += _new(seen, now)
        seen = now
        last = not follow or not is_up
        whole = len(pending) if raw or last else pending.rfind(b"\n") + 1
        if whole:
            piece, pending = pending[:whole], pending[whole:]
            yield piece if raw else plain.console(piece).encode()
        if last:
            return
        waiting.pause(PAUSE_S)


def _new(seen: bytes, now: bytes) -> bytes:
    """What was added since. The log is bounded, so that its middle may have gone meanwhile."""
    if now.startswith(seen):
        return now[len(seen) :]
    anchor = seen[-_ANCHOR_BYTES:]
    at = now.rfind(anchor)
    return now[at + len(anchor) :] if at >= 0 else now[-_ANCHOR_BYTES:]
