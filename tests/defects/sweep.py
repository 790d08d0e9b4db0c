"""Trials of many defects, each in a process of its own, and what is kept of them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

from lab import catalogue as suites_catalogue
from lab import locations, process
from lab.errors import CommandFailed
from lab.inventory.load import load
from tests.defects import trial
from tests.defects.definition import Defect
from tests.defects.judging import Result, judge

LIMIT_S = 2400.0
RESULTS = Path(__file__).with_name("results.json")


def default_place() -> Path:
    """Where trials by hand keep what they need and what they found."""
    return locations.cache() / "defects"


def checks_for(defect: Defect, scope: str) -> tuple[str, ...]:
    """The checks to try: "all" but those of the performance suite, which cost minutes and judge speed; those "near",
    which are the smoke checks and all of the features concerned; or the "few" that caught it last and the smoke checks.
    """
    known = suites_catalogue.load(load(trial.INVENTORY).suites)
    last = read_results().get(defect.name) if scope == "few" else None
    few = set(last.caught) if last else set()
    return tuple(
        check.id
        for check in known.checks
        if check.level == "smoke"
        or (scope == "all" and check.level == "conformance")
        or (scope == "near" and check.feature in defect.breaks)
        or check.id in few
    )


def one(defect: Defect, place: Path, result: Path, scope: str) -> None:
    """Try one defect here and write what became of it."""
    start = time.monotonic()
    work = place / "trials" / f"{defect.name}-{time.time_ns():x}"
    with trial.own_place(place):
        records = trial.run(defect, defect.where, checks_for(defect, scope), work)
    found = replace(judge(defect, records), revision=revision(), seconds=round(time.monotonic() - start, 1))
    draft = result.with_suffix(".draft")
    draft.write_text(json.dumps(found.as_json(), indent=1) + "\n")
    draft.replace(result)


def tried(defect: Defect, place: Path, scope: str) -> Result:
    """Try a defect in a process of its own. Raises `CommandFailed` when the trial itself breaks."""
    file = kept(defect, place, scope)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    words = [sys.executable, "-m", "tests.defects", "one", defect.name, str(file), scope, "--place", str(place)]
    done = process.run(words, timeout_s=LIMIT_S, cwd=trial.ROOT)
    if not file.exists():
        raise CommandFailed(f"the trial of {defect.name} broke: {done.stderr.strip()[-1500:]}")
    return Result.from_json(json.loads(file.read_text()))


def every(defects: Sequence[Defect], place: Path, scope: str, *, jobs: int) -> Iterator[Result]:
    """Try each; results as they come. Raises `CommandFailed` when a trial itself breaks."""
    with ThreadPoolExecutor(jobs) as pool:
        for future in as_completed([pool.submit(tried, defect, place, scope) for defect in defects]):
            yield future.result()


def kept(defect: Defect, place: Path, scope: str) -> Path:
    """Where the result of a defect's last trial is, once there is one."""
    return place / f"{scope}-checks" / f"{defect.name}.json"


def read_results() -> dict[str, Result]:
    """The results that docs/reference/defects.md was written from."""
    if not RESULTS.exists():
        return {}
    return {name: Result.from_json(content) for name, content in json.loads(RESULTS.read_text())["results"].items()}


def told(result: Result) -> str:
    """A result for the terminal."""
    lines = [f"{result.word:12} {result.defect}  ({result.judged} of {result.checks} checks, {result.seconds:.0f} s)"]
    lines += [f"    caught  {check}: {reason[:160]}" for check, reason in result.caught.items()]
    lines += [f"    missed  {feature}" for feature in result.missed]
    lines += [f"    with it {check}: {reason[:160]}" for check, reason in result.collateral.items()]
    lines += [f"    ALARM   {check}: {reason[:300]}" for check, reason in result.false_alarms.items()]
    return "\n".join(lines) + "\n"


def revision() -> str:
    """The commit that the repository stands at; with "+" where what is tried was changed since."""
    at = process.check(["git", "rev-parse", "--short=12", "HEAD"], timeout_s=30, cwd=trial.ROOT).strip()
    changed = process.check(
        ["git", "status", "--porcelain", "--", "lab", "suites", "inventories"], timeout_s=30, cwd=trial.ROOT
    )
    return f"{at}+" if changed else at
