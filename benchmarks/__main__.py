"""Measures everything and writes docs/reference/benchmarks.md; ends with 1 when a limit is passed.

python -m benchmarks           all; boots guests for some minutes
python -m benchmarks --quick   without those that boot guests, and without writing the page
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import controller_memory, plan, startup
from benchmarks.row import Row

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/reference/benchmarks.md"
HEAD = """# Benchmarks

<!-- Written by `make bench`. -->

Each number stands beside one that was measured in the same run on the same machine, because only the ratio travels.
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


QUICK: tuple[Callable[[], list[Row]], ...] = (startup.measure, planning)
WITH_GUESTS: tuple[Callable[[], list[Row]], ...] = (controller_memory.measure,)


def page(rows: Sequence[Row]) -> str:
    """The page with the table."""
    lines = ["| what | measured | ratio | limit | holds |", "|---|---|---|---|---|"]
    lines += ["| " + " | ".join(row.cells()) + " |" for row in rows]
    machine = f"{os.cpu_count()} processors, Python {sys.version_info.major}.{sys.version_info.minor}, Linux"
    return f"{HEAD}\n{chr(10).join(lines)}\n\nMeasured with {machine}, guests under software emulation.\n"


def main(words: Sequence[str]) -> int:
    """Measure, show, write; return the exit code."""
    rows = []
    for measure in QUICK if "--quick" in words else QUICK + WITH_GUESTS:
        for row in measure():
            print(*row.cells(), sep="  ", flush=True)
            rows.append(row)
    if "--quick" not in words:
        PAGE.write_text(page(rows))
    return 0 if all(row.holds for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
