"""Typing on the serial line of a QEMU machine: a named pipe that is QEMU's standard input.

QEMU takes no more out of the pipe than the guest takes off the line, so an empty pipe says that everything is on
it. Nobody stands in between: typing works also when the keeper is gone.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from lab import waiting
from lab.errors import HypervisorRefused, WaitedTooLong
from lab.hypervisors import _qemu_power as power
from lab.hypervisors._qemu_store import Directory

PIPE = "console.in"
LIMIT_S = 60.0
_AT_ONCE = 4096  # pipe(7): up to PIPE_BUF bytes are written in one piece, or not at all


def type_bytes(directory: Directory, data: bytes, *, timeout_s: float) -> None:
    """Returns when the guest took all of it. Raises `HypervisorRefused` when it does not, and forgets the rest."""
    power.require_up(directory)
    name = directory.read().spec.name
    deadline = time.monotonic() + timeout_s
    with _opened(directory, name) as pipe:
        try:
            for start in range(0, len(data), _AT_ONCE):
                part = data[start : start + _AT_ONCE]
                _until(partial(_put, pipe, part), deadline)
            _until(lambda: _waiting_bytes(pipe) == 0, deadline)
        except WaitedTooLong:
            left = _discard(pipe)
            raise HypervisorRefused(
                f"{name} takes nothing off its serial line: {left} bytes were left after {timeout_s:.0f} s"
            ) from None


@contextmanager
def _opened(directory: Directory, name: str) -> Iterator[int]:
    try:
        # For reading too: what nobody takes can be taken back.
        pipe = os.open(directory.here / PIPE, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise HypervisorRefused(f"{name} has no serial line to type on") from None
    try:
        yield pipe
    finally:
        os.close(pipe)


def _put(pipe: int, part: bytes) -> bool:
    try:
        return os.write(pipe, part) == len(part)
    except OSError as reason:
        if reason.errno == errno.EAGAIN:
            return False
        raise


def _waiting_bytes(pipe: int) -> int:
    found = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, found)
    return found[0]


def _discard(pipe: int) -> int:
    left = 0
    while True:
        try:
            left += len(os.read(pipe, _AT_ONCE))
        except BlockingIOError:
            return left


def _until(probe: Callable[[], bool], deadline: float) -> None:
    left_s = max(0.0, deadline - time.monotonic())
    waiting.until(probe, what="the guest to take what was typed", timeout_s=left_s, longest_pause_s=0.1)
