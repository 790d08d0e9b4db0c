"""The limit of a whole check: an alarm that ends what hangs."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from lab.checking.outcomes import CheckTimedOut


@contextmanager
def at_most(seconds: float, what: str) -> Iterator[None]:
    """Raise `CheckTimedOut` in the main thread when the body runs longer; elsewhere there is no limit.

    Only the main thread receives signals (Python's `signal` documentation), and a cell's checks run there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(signum: int, frame: FrameType | None) -> None:
        raise CheckTimedOut(f"{what} ran longer than its {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
