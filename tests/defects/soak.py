"""The soak: guests without any defect, again and again; no check of theirs may fail."""

from __future__ import annotations

import fnmatch
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from lab import catalogue as suites_catalogue
from lab import process
from lab.contracts import Cell
from lab.inventory.load import load
from lab.results.record import Outcome, Record
from lab.runner import plan
from tests.defects import trial
from tests.defects.judging import BAD
from tests.defects.sweep import revision

LIMIT_S = 3600.0
KEPT = Path(__file__).with_name("soak.jsonl")
"""Every round that was ever run to its end, one a line, in the repository."""
SCOPES = ("smoke", "all")
"""Which checks: those of level smoke, or all conformance checks."""
LONGEST_REASON = 1000  # characters; a reason may hold a guest's whole output
WHOLE_ROUND = "the round itself"
"""In place of a check's name: the round ended without records."""


@dataclass(frozen=True)
class Round:
    """One run of the chosen checks of one cell."""

    cell: str
    scope: str  # one of SCOPES
    number: int
    revision: str
    outcomes: dict[str, int]
    failures: dict[str, str]  # check: outcome, blame and reason
    known: dict[str, str]  # the same, of failures that the inventory's known issues name
    seconds: float
    at: str  # when it ended, UTC
    load: float | None  # how many processes wanted the machine's processors when it ended, mean of a minute

    @property
    def judged(self) -> int:
        """How many checks passed or failed."""
        return sum(self.outcomes.get(outcome, 0) for outcome in (Outcome.PASSED, Outcome.FAILED))

    @property
    def clean(self) -> bool:
        """Whether something was tried, nothing was left out for a fault, and nothing failed but what is known."""
        return self.judged > 0 and not self.failures and not self.outcomes.get(Outcome.BLOCKED)


def cells(pattern: str, scope: str) -> dict[str, tuple[str, ...]]:
    """The cells of the local lab that are not excluded, and the checks of each in that scope."""
    inventory = load(trial.INVENTORY)
    known = suites_catalogue.load(inventory.suites)
    made = plan.make(inventory, known, suite="conformance", select=[], exclude=[])
    return {
        it.cell.name: tuple(
            check for check in it.checks if scope == "all" or known.checks_by_id[check].level == "smoke"
        )
        for it in made.cells
        if it.excluded is None and fnmatch.fnmatch(it.cell.name, pattern)
    }


@dataclass(frozen=True)
class Soak:
    """What is wanted: so many rounds of these checks in each of these cells."""

    pattern: str
    scope: str
    times: int
    place: Path  # for machines and records
    file: Path = KEPT
    program: tuple[str, ...] = (sys.executable, "-m", "tests.defects")

    def missing(self) -> list[tuple[str, int]]:
        """Cell and number of each round that is still to be run: each cell once, then each once more, and so on."""
        done = Counter(it.cell for it in read(self.file) if it.scope == self.scope)
        return [
            (cell, number)
            for number in range(1, self.times + 1)
            for cell in cells(self.pattern, self.scope)
            if number > done[cell]
        ]

    def run(self, *, jobs: int, seconds: float) -> Iterator[Round]:
        """Run what is missing, so many rounds at once; begin none after so many seconds. Resumable at any moment."""
        end = time.monotonic() + seconds

        def begin(cell: str, number: int) -> Round | None:
            return self._apart(cell, number) if time.monotonic() < end else None

        with ThreadPoolExecutor(jobs) as pool:
            for future in as_completed([pool.submit(begin, *wanted) for wanted in self.missing()]):
                if (done := future.result()) is not None:
                    yield done

    def _apart(self, cell: str, number: int) -> Round:
        """A round in a process of its own. One that breaks is kept too: it is a failure as well."""
        result = self.place / "rounds" / f"{self.scope}-{cell.replace('/', '-')}-{number}.json"
        result.parent.mkdir(parents=True, exist_ok=True)
        result.unlink(missing_ok=True)
        words = [*self.program, "round", cell, str(number), str(result), "--checks", self.scope]
        told = process.run([*words, "--place", str(self.place)], timeout_s=LIMIT_S, cwd=trial.ROOT)
        if result.exists():
            done = Round(**json.loads(result.read_text()))
        else:
            broke = f"ended with {told.status}: {told.stderr.strip()[-LONGEST_REASON:]}"
            done = _round((cell, self.scope, number), (), {WHOLE_ROUND: broke}, 0.0)
        with self.file.open("a") as lines:
            lines.write(json.dumps(asdict(done), ensure_ascii=False) + "\n")
        return done


def one(which: tuple[str, str, int], place: Path, result: Path) -> None:
    """One round, here: cell, scope and number. Its result is written when it is whole."""
    cell, scope, _ = which
    start = time.monotonic()
    work = place / "rounds" / f"{cell.replace('/', '-')}-{time.time_ns():x}"
    with trial.own_place(place):
        records = trial.run(None, Cell.parse(cell), cells(cell, scope)[cell], work)
    done = _round(which, records, {}, round(time.monotonic() - start, 1))
    draft = result.with_suffix(".draft")
    draft.write_text(json.dumps(asdict(done), ensure_ascii=False) + "\n")
    draft.replace(result)


def _round(
    which: tuple[str, str, int], records: tuple[Record, ...], failures: Mapping[str, str], seconds: float
) -> Round:
    cell, scope, number = which
    bad = [record for record in records if record.outcome in BAD]
    known = [record for record in bad if _is_known(record)]
    return Round(
        cell=cell,
        scope=scope,
        number=number,
        revision=revision(),
        outcomes=dict(Counter(str(record.outcome) for record in records)),
        failures={**failures, **{record.check: _said(record) for record in bad if record not in known}},
        known={record.check: _said(record) for record in known},
        seconds=seconds,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        load=round(os.getloadavg()[0], 1),
    )


def read(file: Path = KEPT) -> list[Round]:
    """The rounds so far, in the order in which they ended."""
    return [Round(**json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []


def told(done: Round) -> str:
    """A round for the terminal."""
    word = "clean" if done.clean else "FAILED"
    lines = [f"{word:7} {done.number:3} {done.cell}  ({done.judged} {done.scope} checks, {done.seconds:.0f} s)"]
    lines += [f"    {check}: {reason[:400]}" for check, reason in done.failures.items()]
    return "\n".join(lines) + "\n"


def _is_known(record: Record) -> bool:
    issues = load(trial.INVENTORY).matrix.known_issues
    return any(issue.covers(record.cell, feature=record.feature, check=record.check) for issue in issues)


def _said(record: Record) -> str:
    return f"{record.outcome}, blame {record.blame}: {record.reason}"[:LONGEST_REASON]
