"""Measures everything and writes docs/reference/benchmarks.md; ends with 1 when a limit is passed.

python -m benchmarks           all; boots guests, takes some minutes, at most twelve
python -m benchmarks --quick   without those that boot guests, and without writing the page
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import bring_up, checks_cost, controller_memory, plan, runner_overhead, spent, startup, xen_host
from benchmarks.row import Row
from lab.errors import LabError

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/reference/benchmarks.md"
BUDGET_S = 600.0
"""After it nothing more is begun; what is under way has limits of its own."""

NOTHING = "not measured"

HEAD = """# Benchmarks

<!-- Written by `make bench`. -->

Each number stands beside one that was measured in the same run on the same machine, in turns, because only the ratio
travels. Seconds are those of the middle round; a ratio is the middle one of the ratios of each round. What runs
beside it shows in the load (processes that want a processor, over the last minute), and makes seconds long and
ratios wild: on a quiet machine the load is that of the benchmark itself.
"""


def planning() -> list[Row]:
    """The benchmark of the planner, which reports by itself."""
    finished = subprocess.run(
        [sys.executable, "benchmarks/plan.py", "--json"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    told = json.loads(finished.stdout)
    last = told["measured"][-1]
    ratio = told["ratio_per_cell"]
    return [
        Row(
            f"planning {last['cells']:,.0f} cells",
            f"{last['seconds']:.2f} s, {last['mib']:.0f} MiB",
            f"{ratio:.2f} x the time per cell of {told['measured'][0]['cells']:,.0f} cells",
            f"{plan.LIMIT_S:g} s, {plan.LIMIT_MIB:g} MiB, {plan.LIMIT_RATIO:g} x",
            finished.returncode == 0,
        )
    ]


@dataclass(frozen=True)
class Part:
    """One benchmark: what it measures, and how."""

    name: str
    measure: Callable[[], list[Row]]


QUICK = (
    Part("starting", startup.measure),
    Part("planning", planning),
    Part("the runner's overhead", runner_overhead.measure),
)
WITH_GUESTS = (
    Part("bringing a guest up", bring_up.measure),
    Part("checks", checks_cost.measure),
    Part("memory", controller_memory.measure),
    Part("a Xen host", xen_host.measure),
)


def measured(parts: Sequence[Part], *, until: float) -> Iterator[Row]:
    """The rows of every part; a part that measured nothing has a row that does not hold. `until` is monotonic."""
    for part in parts:
        if time.monotonic() > until:
            yield Row(part.name, NOTHING, "the time ran out", "", holds=False)
            continue
        rows = _once(part)
        failed = [row for row in rows if not row.holds and row.measured != NOTHING]
        if failed and _busy() and time.monotonic() < until:
            # Others used the machine. What holds once holds: noise only adds.
            again = {row.what: row for row in _once(part)}
            rows = [row if row.holds else again.get(row.what, row) for row in rows]
        yield from rows


def _once(part: Part) -> list[Row]:
    before = os.getloadavg()[0]
    try:
        rows = part.measure()
    except (spent.Failed, LabError, OSError, subprocess.SubprocessError, ValueError) as reason:
        return [Row(part.name, NOTHING, " ".join(str(reason).split())[:200], "", holds=False)]
    if not rows:
        return [Row(part.name, NOTHING, "it has no rows", "", holds=False)]
    load = f"{before:.1f} to {os.getloadavg()[0]:.1f}"
    return [replace(row, load=load) for row in rows]


def _busy() -> bool:
    return os.getloadavg()[0] > len(os.sched_getaffinity(0))


def page(rows: Sequence[Row]) -> str:
    """The page with the table. A bar in what was measured cannot break it."""
    lines = ["| what | measured | ratio | limit | holds | load |", "|---|---|---|---|---|---|"]
    lines += ["| " + " | ".join(cell.replace("|", "/") for cell in row.cells()) + " |" for row in rows]
    versions = ", ".join(_versions())
    return (
        f"{HEAD}\n{chr(10).join(lines)}\n\nMeasured {datetime.now(UTC):%Y-%m-%d} with {len(os.sched_getaffinity(0))} "
        f"processors, guests under software emulation; {versions}.\n"
    )


def _versions() -> Iterator[str]:
    yield f"Linux {platform.release().partition('-')[0]}"
    yield f"Python {platform.python_version()}"
    yield from (f"{name} {importlib.metadata.version(name)}" for name in ("pytest", "paramiko"))
    for line, pattern in (
        (("qemu-system-x86_64", "--version"), r"version ([\d.]+)"),
        (("ssh", "-V"), r"OpenSSH_(\S+)"),
    ):
        said = subprocess.run(line, capture_output=True, text=True, check=False)
        found = re.search(pattern, said.stdout + said.stderr)
        yield f"{'QEMU' if 'qemu' in line[0] else 'OpenSSH'} {found[1].rstrip(',') if found else 'unknown'}"


def main(words: Sequence[str]) -> int:
    """Measure, show, write; return the exit code."""
    # Compiled modules are part of every installation; an environment that forbids to write them is not.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    rows = []
    quick = "--quick" in words
    for row in measured(QUICK if quick else QUICK + WITH_GUESTS, until=time.monotonic() + BUDGET_S):
        print(*row.cells(), sep="  ", flush=True)
        rows.append(row)
    if not quick:
        PAGE.write_text(page(rows))
    return 0 if all(row.holds for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
