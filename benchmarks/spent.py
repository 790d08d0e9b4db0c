"""What a command cost: seconds on the clock, and seconds of processor of it and of all that it started.

On a machine that others use too, the clock tells more about them; processor time tells about the command.
"""

from __future__ import annotations

import ctypes
import os
import statistics
import subprocess
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import waiting

_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
_LIMIT_S = 180.0


@dataclass(frozen=True)
class Spent:
    """Seconds of one command, or of the middle one of several."""

    wall_s: float
    cpu_s: float


class Failed(Exception):
    """What was to be measured did not work, so its time says nothing."""


def on(
    argv: Sequence[str],
    *,
    cwd: Path,
    environment: Mapping[str, str] | None = None,
    afterwards: Callable[[], None] = lambda: None,
) -> Spent:
    """Run a command to its end; then `afterwards` ends what it left running, whose processor time counts as well.

    Raises `Failed` when its exit status is not 0.
    """
    _adopt_orphans()
    there, before = _children(), _reaped_cpu_s()
    with tempfile.TemporaryFile() as said:  # no pipe: what it leaves running would hold its other end
        start = time.perf_counter()
        started = subprocess.Popen(
            argv,
            cwd=cwd,
            env=None if environment is None else {**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
        try:
            started.wait(_LIMIT_S)
            wall_s = time.perf_counter() - start
        finally:
            started.kill()
            afterwards()
            _reap(there)
        said.seek(0)
        words = said.read().decode(errors="replace")[-500:]
    if started.returncode != 0:
        raise Failed(f"{' '.join(argv)[:200]} ended with {started.returncode}: {words}")
    return Spent(wall_s, _reaped_cpu_s() - before)


def forked(work: Callable[[], float]) -> Spent:
    """Run `work` in a fork of this process, as cells run in one of their server; it returns its own seconds.

    So it starts with everything imported, and what it does after its last look at the clock does not count but as
    processor time. Raises `Failed` when it raised.
    """
    _adopt_orphans()
    there, before = _children(), _reaped_cpu_s()
    with tempfile.TemporaryFile() as told:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                told.write(f"{work():.6f}".encode())
                told.flush()
                status = 0
            except BaseException:  # noqa: BLE001 - the end of this process: the parent raises
                told.write(traceback.format_exc().encode())
                told.flush()
            finally:
                os._exit(status)
        _, status = os.waitpid(pid, 0)
        _reap(there)
        told.seek(0)
        words = told.read().decode(errors="replace")
    if status != 0:
        raise Failed(words[-800:])
    return Spent(float(words), _reaped_cpu_s() - before)


def in_turns(
    sides: Mapping[str, Callable[[], Spent]], rounds: int, *, budget_s: float = 120.0
) -> dict[str, list[Spent]]:
    """Measure every side once in each round, so that what disturbs one disturbs the others as well.

    On a slow machine it ends before the last round when the budget is spent.
    """
    taken: dict[str, list[Spent]] = {name: [] for name in sides}
    start = time.monotonic()
    for number in range(rounds):
        if number and time.monotonic() - start > budget_s:
            break
        # Every second round the other way round: whoever comes first finds colder caches.
        names = list(sides) if number % 2 == 0 else list(reversed(list(sides)))
        for name in names:
            taken[name].append(sides[name]())
    return taken


def median(taken: Sequence[Spent]) -> Spent:
    """The middle of each kind of seconds. Raises `Failed` when nothing was measured."""
    if not taken:
        raise Failed("nothing was measured")
    return Spent(
        statistics.median(one.wall_s for one in taken),
        statistics.median(one.cpu_s for one in taken),
    )


def ratio(ours: Sequence[Spent], theirs: Sequence[Spent]) -> Spent:
    """The median of the ratios within each round: a slow minute of the machine slows both sides of its round."""
    pairs = list(zip(ours, theirs, strict=True))
    if not pairs or any(other.wall_s <= 0 for _, other in pairs):
        raise Failed("nothing was measured")
    return Spent(
        statistics.median(one.wall_s / other.wall_s for one, other in pairs),
        statistics.median(one.cpu_s / other.cpu_s if other.cpu_s > 0 else float("inf") for one, other in pairs),
    )


def _adopt_orphans() -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise Failed("this kernel gives no orphans away (prctl PR_SET_CHILD_SUBREAPER)")


def _reaped_cpu_s() -> float:
    times = os.times()
    return times.children_user + times.children_system


def _children() -> set[int]:
    # Of every thread: the one that starts a process is its parent in /proc (proc(5)).
    return {int(word) for told in Path("/proc/self/task").glob("*/children") for word in told.read_text().split()}


def _reap(before: set[int]) -> None:
    """Wait for all children that were not there before."""

    def done() -> bool:
        left = _children() - before
        return not [pid for pid in left if os.waitpid(pid, os.WNOHANG)[0] == 0]

    # The server that cells fork from ends by itself when its controller has; only then is its time counted.
    waiting.until(done, what="everything that was started to end", timeout_s=60.0)
