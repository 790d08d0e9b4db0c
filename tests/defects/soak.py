"""The soak: guests without any defect, again and again; no check of theirs may fail."""

from __future__ import annotations

import fnmatch
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab import catalogue as suites_catalogue
from lab import process
from lab.contracts import Cell
from lab.inventory.load import load
from lab.results.record import Record
from lab.runner import plan
from tests.defects import trial
from tests.defects.judging import BAD

LIMIT_S = 3600.0


@dataclass(frozen=True)
class Round:
    """One run of all checks of one cell."""

    cell: str
    number: int
    revision: str
    outcomes: dict[str, int]
    failures: dict[str, str]  # check: outcome, blame and reason
    known: dict[str, str]  # the same, of failures that the inventory's known issues name
    seconds: float


def cells(pattern: str) -> dict[str, tuple[str, ...]]:
    """The cells of the local lab that are not excluded, and the conformance checks of each."""
    inventory = load(trial.INVENTORY)
    made = plan.make(inventory, suites_catalogue.load(inventory.suites), suite="conformance", select=[], exclude=[])
    return {
        it.cell.name: tuple(it.checks)
        for it in made.cells
        if it.excluded is None and fnmatch.fnmatch(it.cell.name, pattern)
    }


def rounds(pattern: str, times: int, place: Path) -> Iterator[Round]:
    """Run what is still missing: each cell once, then each once more, and so on. Resumable at any moment."""
    wanted = cells(pattern)
    for number in range(1, times + 1):
        for cell in wanted:
            if number > len(kept(place, cell)):
                words = [sys.executable, "-m", "tests.defects", "round", cell, str(number), "--place", str(place)]
                done = process.run(words, timeout_s=LIMIT_S, cwd=trial.ROOT)
                found = kept(place, cell)
                if len(found) < number:
                    sys.stderr.write(f"round {number} of {cell} broke: {done.stderr.strip()[-1500:]}\n")
                    continue
                yield found[-1]


def one(cell: str, number: int, place: Path) -> None:
    """One round, here; its result is kept beside those before it."""
    from tests.defects.sweep import revision

    start = time.monotonic()
    work = place / "rounds" / f"{cell.replace('/', '-')}-{time.time_ns():x}"
    with trial.own_place(place):
        records = trial.run(None, Cell.parse(cell), cells(cell)[cell], work)
    bad = [record for record in records if record.outcome in BAD]
    known = [record for record in bad if _is_known(record)]
    found = Round(
        cell=cell,
        number=number,
        revision=revision(),
        outcomes=dict(Counter(str(record.outcome) for record in records)),
        failures={record.check: _said(record) for record in bad if record not in known},
        known={record.check: _said(record) for record in known},
        seconds=round(time.monotonic() - start, 1),
    )
    file = _file(place, cell)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as lines:
        lines.write(json.dumps(found.__dict__) + "\n")


def kept(place: Path, cell: str) -> list[Round]:
    """The rounds of a cell so far."""
    file = _file(place, cell)
    return [Round(**json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []


def told(done: Round) -> str:
    """A round for the terminal."""
    lines = [f"{'FAILED' if done.failures else 'clean':7} {done.number:3} {done.cell}  ({done.seconds:.0f} s)"]
    lines += [f"    {check}: {reason[:400]}" for check, reason in done.failures.items()]
    return "\n".join(lines) + "\n"


def _file(place: Path, cell: str) -> Path:
    return place / "soak" / f"{cell.replace('/', '-')}.jsonl"


def _is_known(record: Record) -> bool:
    issues = load(trial.INVENTORY).matrix.known_issues
    return any(issue.covers(record.cell, feature=record.feature, check=record.check) for issue in issues)


def _said(record: Record) -> str:
    return f"{record.outcome}, blame {record.blame}: {record.reason}"
