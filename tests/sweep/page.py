"""The table of a sweep."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from tests.sweep.shot import Shot

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "sweep.md"
HEAD = """# Killed at any moment

<!-- Written by `python -m tests.sweep --write`. -->

A sweep begins a run, kills one of its processes with SIGKILL at a random moment, takes the run up with `--resume`, and
compares it with an undisturbed one.

- *Equal* means: the same cells, in each the same checks, and for each check the same outcome in the cell's last
  attempt; every attempt has its `cell.json`, no check has two records in one attempt, the exit code is the same,
  no record of any attempt blames the product for the kill. Attempt numbers, times, measured numbers, reasons of earlier
  attempts, names of machines, and whether a machine was a restored copy may differ.
- *Nothing left* means: no process whose command line, environment, folder or open files lead to the place of the sweep
  (with the processes go their ports, network names and locks), no machine, no half-made image, copy, report or site,
  no seed with its private key, no temporary file, every lock free.
- *Everything* kills all processes of the run in one go, as a power cut would.

Moments are drawn evenly over the run, so a phase is hit as often as it is long; what has no row was not hit. A table
counts the kills that were made, no more: the sweep goes on where it was when it is called with a larger `--kills`.
What was not survived stays in the table after its cause is mended.
"""


def text(sweeps: Sequence[tuple[str, Sequence[Shot]]]) -> str:
    """The page, with one table for each sweep and its title."""
    return HEAD + "".join(f"\n## {title}\n\n{_table(shots)}" for title, shots in sweeps)


def _table(shots: Sequence[Shot]) -> str:
    shots = [shot for shot in shots if "just ended" not in shot.phase]
    rows: dict[tuple[str, str], list[Shot]] = defaultdict(list)
    for shot in shots:
        rows[shot.victim, _short(shot.phase)].append(shot)
    lines = ["| killed | while | kills | not equal | left something |", "|---|---|---|---|---|"]
    for (victim, phase), found in sorted(rows.items()):
        lines.append(f"| {victim} | {phase} | {len(found)} | {_bad(found)} | {sum(bool(s.left) for s in found)} |")
    left = sum(bool(shot.left) for shot in shots)
    lines.append(f"| **all** | | **{len(shots)}** | **{_bad(shots)}** | **{left}** |")
    victims = Counter(shot.victim for shot in shots)
    return "\n".join(lines) + f"\n\nKills: {', '.join(f'{n} {victim}' for victim, n in sorted(victims.items()))}.\n"


def _bad(shots: Sequence[Shot]) -> int:
    return sum(bool(shot.mismatches) for shot in shots)


def _short(phase: str) -> str:
    return phase.partition(" (")[0].replace("the saved machine is of no use; booting cold", "restore")
