"""Starting: `lab --help` and `lab plan`, beside an interpreter that does nothing.

python benchmarks/startup.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.row import Row  # noqa: E402 - also run as a file

ROUNDS = 7
LAB = (sys.executable, "-m", "lab")
COMMANDS = {
    "an interpreter": (sys.executable, "-c", "pass"),
    "lab --help": (*LAB, "--help"),
    "lab plan inventories/local": (*LAB, "plan", "inventories/local"),
}
LIMITS_S = {"lab --help": 0.25, "lab plan inventories/local": 1.0}


def seconds(command: Sequence[str]) -> float:
    """How long a command takes from here."""
    # Compiled modules are part of every installation; an environment that forbids to write them is not.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    before = time.perf_counter()
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True, env=environment)
    return time.perf_counter() - before


def measure() -> list[Row]:
    """The best of some rounds each, in turns, for noise only adds."""
    best = {name: min(seconds(command) for _ in range(2)) for name, command in COMMANDS.items()}
    for _ in range(ROUNDS):
        for name, command in COMMANDS.items():
            best[name] = min(best[name], seconds(command))
    idle = best["an interpreter"]
    return [
        Row(
            f"`{name}`",
            f"{best[name] * 1000:.0f} ms",
            f"{best[name] / idle:.1f} x a bare interpreter ({idle * 1000:.0f} ms)",
            f"{limit * 1000:.0f} ms",
            best[name] < limit,
        )
        for name, limit in LIMITS_S.items()
    ]


if __name__ == "__main__":
    for row in measure():
        print(*row.cells(), sep="  ")
