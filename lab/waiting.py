"""Waiting: the one file where the lab sleeps, always with a limit and with what it waits for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from lab.errors import WaitedTooLong

T = TypeVar("T")


def until(
    probe: Callable[[], T | None],
    *,
    what: str,
    timeout_s: float,
    first_pause_s: float = 0.01,
    longest_pause_s: float = 0.5,
) -> T:
    """Call `probe` until it answers something true, pausing longer each time; return that answer.

    Raises `WaitedTooLong` with `what` in its message. What `probe` raises goes through.
    """
    start = time.monotonic()
    pause_s = first_pause_s
    while True:
        answer = probe()
        if answer:
            return answer
        waited_s = time.monotonic() - start
        if waited_s >= timeout_s:
            raise WaitedTooLong(f"waited {waited_s:.1f} s for {what}")
        time.sleep(min(pause_s, max(0.0, timeout_s - waited_s)))
        pause_s = min(pause_s * 1.5, longest_pause_s)


def pause(seconds: float) -> None:
    """Let time pass where time itself is what is measured (a drift, a rate); never to wait for something."""
    time.sleep(seconds)
