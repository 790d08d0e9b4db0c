"""A long-lived `/bin/sh` in a guest: commands go in with a secret marker, their output and status come out."""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from lab.ssh._pump import Bounded, Pump

# Some SSH servers give a path without the administrator's programs; LC_ALL=C makes output parseable.
PRELUDE = "PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C;export PATH LC_ALL;"
_END = "_lab_end(){ printf '%s %d\\n' $1 $2;printf '%s 0\\n' $1>&2;};"
_LARGEST_STATUS = 255
_NUMBER = re.compile(rb" (\d{1,10})\n")


class ShellLost(Exception):
    """The shell ended, or what comes from it makes no sense; the channel says it in the lab's own words."""


@dataclass(frozen=True)
class Output:
    """What a command wrote so far; `status` is `None` until it has ended."""

    status: int | None
    stdout: bytes
    stderr: bytes
    truncated: bool


def quoted(argv: Sequence[str]) -> str:
    """The words for a POSIX shell. Raises `ValueError` for no words and for words that hold a NUL."""
    if not argv:
        raise ValueError("a command needs at least one word")
    if any("\0" in word for word in argv):
        raise ValueError("a word of a command cannot hold a NUL byte")
    # The first word always in quotes: a bare `if`, `A=b` or `{` would be syntax.
    return " ".join(["'" + argv[0].replace("'", "'\"'\"'") + "'", *map(shlex.quote, argv[1:])])


class _Sink(Protocol):
    def feed(self, data: bytes) -> None: ...


class Marked:
    """One stream up to a marker and the number behind it; the marker is found also when it comes in pieces."""

    def __init__(self, marker: str, before: Bounded, *, after: _Sink | None = None) -> None:
        self.before = before
        self.number: int | None = None  # what stands behind the marker; `None` until it came
        self._after = after  # gets what comes behind it
        self._marker = marker.encode()
        self._pending = b""

    def feed(self, data: bytes) -> None:
        """Raises `ShellLost` when something else than a number follows the marker."""
        if self.number is not None:
            if self._after is not None:
                self._after.feed(data)
            return
        pending = self._pending + data
        found = pending.find(self._marker)
        keep = found if found >= 0 else max(0, len(pending) - len(self._marker) + 1)
        self.before.feed(pending[:keep])
        self._pending = pending[keep:]
        if found >= 0:
            self._finish(pending[found + len(self._marker) :])

    def so_far(self) -> bytes:
        """What came before the marker, also when the marker has not come."""
        return self.before.value() if self.number is not None else self.before.value() + self._pending

    def _finish(self, after: bytes) -> None:
        if number := _NUMBER.match(after):
            self.number = int(number[1])
            self._pending = b""
            if self._after is not None:
                self._after.feed(after[number.end() :])
        elif len(after) > 12:
            raise ShellLost("the shell's answer makes no sense")


class Shell:
    """One shell over one channel, one command at a time. After an exception `so_far` tells; then close it."""

    def __init__(self, pump: Pump) -> None:
        self.pump = pump
        self._hello: Marked | None = None
        self._out: Marked | None = None
        self._err: Marked | None = None

    @property
    def pid(self) -> int | None:
        """Of the shell in the guest; known as soon as it greeted."""
        return None if self._hello is None else self._hello.number

    def run(self, argv: Sequence[str], *, deadline: float, limit_bytes: int) -> Output:
        """Run with standard input from /dev/null.

        Raises `ShellLost`, `TimeoutError`, `PeerGone`, `OSError`.
        """
        marker = new_marker()
        # The subshell keeps `exit`, `cd` and `set` of one command from the next; shells exec its last command,
        # so that it costs no further process.
        line = f"({quoted(argv)})</dev/null;_lab_end {marker} $?\n"
        self._out = out = Marked(marker, Bounded(limit_bytes))
        self._err = err = Marked(marker, Bounded(limit_bytes))
        if self.pid is not None:
            self.pump.discard()  # what background processes of earlier commands wrote meanwhile
            self._send(line, deadline)
            self._read(out, err, deadline)
        else:
            # The greeting goes with the first command, which saves a round trip.
            hello = new_marker()
            self._hello = Marked(hello, Bounded(0), after=out)
            hello_err = Marked(hello, Bounded(0), after=err)
            self._send(f"{PRELUDE}{_END}_lab_end {hello} $$\n{line}", deadline)
            self._read(self._hello, hello_err, deadline)
        if (out.number or 0) > _LARGEST_STATUS:
            raise ShellLost("the shell tells a status that no command can have")
        return self.so_far()

    def so_far(self) -> Output:
        """What the last command wrote, however it ended."""
        if self._out is None or self._err is None:
            return Output(None, b"", b"", truncated=False)
        out, err = self._out.before, self._err.before
        return Output(self._out.number, self._out.so_far(), self._err.so_far(), out.truncated or err.truncated)

    def close(self) -> None:
        self.pump.close()

    def _read(self, out: Marked, err: Marked, deadline: float) -> None:
        while self._incomplete():
            try:
                got_out, got_err = self.pump.read(deadline)
            except EOFError:
                raise ShellLost("the shell ended") from None
            out.feed(got_out)
            err.feed(got_err)

    def _incomplete(self) -> bool:
        return any(stream is None or stream.number is None for stream in (self._out, self._err))

    def _send(self, text: str, deadline: float) -> None:
        try:
            self.pump.send(text.encode(errors="surrogateescape"), deadline)
        except EOFError:
            raise ShellLost("the shell ended") from None


def new_marker() -> str:
    # Random, so that no output contains it, not even one that repeats earlier markers.
    return secrets.token_hex(12)
