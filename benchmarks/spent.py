"""What a command cost: seconds on the clock, and seconds of processor of it and of all that it started.

On a machine that others use too, the clock tells more about them; processor time tells about the command.
"""

from __future__ import annotations

import ctypes
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import waiting

_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
_LIMIT_S = 600.0


@dataclass(frozen=True)
class Spent:
    """Seconds of one command, or of the middle one of several."""

    wall_s: float
    cpu_s: float


class Failed(Exception):
    """What was to be measured did not work, so its time says nothing."""


def on(argv: Sequence[str], *, cwd: Path, environment: Mapping[str, str] | None = None) -> Spent:
    """Run a command to its end, with all that it leaves behind. Raises `Failed` when its exit status is not 0."""
    _adopt_orphans()
    before = _reaped_cpu_s()
    start = time.perf_counter()
    started = subprocess.Popen(
        argv,
        cwd=cwd,
        env=None if environment is None else {**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    _, said = started.communicate(timeout=_LIMIT_S)
    wall_s = time.perf_counter() - start
    # The server that cells fork from ends by itself when its controller has; only then is its time counted.
    waiting.until(_all_reaped, what=f"the children of {argv[0]} to end", timeout_s=60.0)
    if started.returncode != 0:
        raise Failed(f"{' '.join(argv)} ended with {started.returncode}: {said.decode(errors='replace')[-500:]}")
    return Spent(wall_s, _reaped_cpu_s() - before)


def in_turns(sides: Mapping[str, Callable[[], Spent]], rounds: int) -> dict[str, list[Spent]]:
    """Measure every side once in each round, so that what disturbs one disturbs the others as well."""
    taken: dict[str, list[Spent]] = {name: [] for name in sides}
    for number in range(rounds):
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


def _all_reaped() -> bool:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue
    except ChildProcessError:
        return True
    return False
