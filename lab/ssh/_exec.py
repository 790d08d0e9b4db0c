"""One command on an SSH channel of its own: for standard input, streams, and what must not wait for the shell."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Sequence

from lab.ssh._pump import Bounded, Pump
from lab.ssh._shell import PRELUDE, Marked, Output, new_marker, quoted

# A process that the command left in the background may hold the output open for ever, or go on writing to it.
_AFTER_EXIT_S = 1.0  # of silence
_LONGEST_AFTER_EXIT_S = 30.0


class Exec:
    """A command whose process id is known, so that it can be ended."""

    def __init__(self, argv: Sequence[str], limit_bytes: int) -> None:
        marker = new_marker()
        self._out = Bounded(limit_bytes)
        self._err = Bounded(limit_bytes)
        self._pid = Marked(marker, Bounded(0), after=self._err)
        script = f"{PRELUDE}printf '%s %d\\n' {marker} $$>&2;{quoted(argv)};exit $?"
        self.command = f"exec /bin/sh -c {shlex.quote(script)}".encode(errors="surrogateescape")
        self._status: int | None = None

    @property
    def pid(self) -> int | None:
        """Of the shell around the command, in the guest; `None` until it said so."""
        return self._pid.number

    def run(self, pump: Pump, stdin: bytes, deadline: float) -> Output:
        """Feed the command, take its output, wait for its end.

        Raises `TimeoutError`, `PeerGone`, and `EOFError` when the channel ended without an exit status.
        """
        unsent: memoryview | None = memoryview(stdin)
        exited: float | None = None
        heard = time.monotonic()
        while True:
            out, err = pump.take()
            self._keep(out, err)
            # The status may come long before the output of a guest that has little time.
            heard = time.monotonic() if out or err else heard
            if unsent is not None:
                unsent = _fed(pump, unsent)
            self._status = pump.status()
            if self._status is not None:
                exited = exited or time.monotonic()
                silent_s = time.monotonic() - max(heard, exited)
                is_late = time.monotonic() - exited > _LONGEST_AFTER_EXIT_S
                if pump.has_ended() or silent_s > _AFTER_EXIT_S or is_late:
                    return self.so_far()
            elif pump.is_closed() and pump.has_ended():
                raise EOFError("the command's channel ended without an exit status")
            # The exit status and room for input come without a wake-up.
            impatient = unsent is not None or exited is not None or pump.has_ended()
            pump.wait(deadline, at_most_s=0.01 if impatient else 3600.0)

    def stream(self, pump: Pump, deadline: float, limit_bytes: int) -> Iterator[bytes]:
        """Yield standard output as it comes. Raises `TimeoutError`, `PeerGone`, `OSError`."""
        pump.end_input()
        left = limit_bytes
        while left > 0:
            try:
                out, err = pump.read(deadline)
            except EOFError:
                return
            self._pid.feed(err)
            if out:
                yield out[:left]
                left -= len(out)

    def await_pid(self, pump: Pump) -> int | None:
        """The process id, waiting a moment for it: it comes as an error output, which may lag behind the other."""
        deadline = time.monotonic() + _AFTER_EXIT_S
        try:
            while self.pid is None:
                self._pid.feed(pump.read(deadline)[1])
        except (TimeoutError, EOFError, OSError):
            return None  # it never started, or the guest is gone: there is nothing to end
        return self.pid

    def so_far(self) -> Output:
        """What the command wrote, however it ended."""
        truncated = self._out.truncated or self._err.truncated
        return Output(self._status, self._out.value(), self._err.value(), truncated)

    def _keep(self, out: bytes, err: bytes) -> None:
        self._out.feed(out)
        self._pid.feed(err)


def _fed(pump: Pump, unsent: memoryview) -> memoryview | None:
    """Send what goes; return the rest, `None` when the input has ended."""
    try:
        unsent = unsent[pump.send_some(bytes(unsent[: 1 << 18])) :] if unsent else unsent
        if unsent:
            return unsent
        pump.end_input()
    except EOFError:
        return None  # the command ended without reading all, as `head` does
    return None
