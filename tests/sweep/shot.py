"""One shot of the sweep: begin a run, kill one of its processes at some moment, resume, compare, look for leftovers."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab import process, waiting
from lab.errors import WaitedTooLong
from tests.sweep import leftovers
from tests.sweep.place import Place

LIMIT_S = 400.0
"""For one run; a run that takes longer hangs, and is a finding."""

VICTIMS = ("controller", "cell", "hypervisor", "everything")
Outcomes = Mapping[tuple[str, str], str]


class Hangs(Exception):
    """A run did not end."""


@dataclass(frozen=True)
class Baseline:
    """What an undisturbed run gives, and how long it takes."""

    outcomes: Outcomes  # of each check in each cell
    exit_code: int
    seconds: float


@dataclass
class Shot:
    """What became of one."""

    number: int
    victim: str
    phase: str  # what the victim was doing
    after_s: float
    status: int = 0  # the killed run's exit status; negative for the signal
    resumed: int = 0  # exit status after --resume
    said: str = ""  # what the killed run's records say of the cell that was hit
    mismatches: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    seconds: float = 0.0


def undisturbed(place: Place) -> Baseline:
    """Run it all twice without any kill: the first fills the cache, the second counts."""
    _end_of(place, place.start())
    start = time.monotonic()
    status = _end_of(place, place.start())
    seconds = time.monotonic() - start
    run = place.runs()[-1]
    outcomes, problems = read(run)
    if problems or status != 0:
        raise AssertionError(f"the undisturbed run is not well: exit status {status}, {problems}\n{place.said()}")
    left = leftovers.of(place, run)
    if left:
        raise AssertionError(f"the undisturbed run left: {left}")
    clear(place)
    return Baseline(outcomes, status, seconds)


def fire(place: Place, baseline: Baseline, *, number: int, seed: int) -> Shot:
    """Make the shot of that number; the same seed and number choose the same victim and moment."""
    rng = random.Random(f"{seed}:{number}")  # noqa: S311 - it must be repeatable, not secret
    victims = [name for name in VICTIMS if place.driver == "real" or name != "hypervisor"]
    victim = victims[number % len(victims)]
    if rng.random() < 0.5:
        _forget_a_copy(place, rng)
    start = time.monotonic()
    shot = Shot(number, victim, "", 0.0)
    try:
        running = _hit(place, baseline, shot, rng)
        shot.status = _end_of(place, running)
        if place.runs():
            shot.said = _blamed(place.runs()[-1], shot.mismatches)
            shot.resumed = _end_of(place, place.start("--resume", "last"))
        else:
            # Killed before there was anything to resume: then there is nothing but a run from the beginning.
            shot.resumed = _end_of(place, place.start())
        _compare(place, baseline, shot)
    except Hangs as reason:
        shot.mismatches.append(str(reason))
    shot.left = leftovers.of(place, place.runs()[-1] if place.runs() else None)
    shot.seconds = round(time.monotonic() - start, 1)
    return shot


def clear(place: Place) -> None:
    """Remove the reports of a shot."""
    shutil.rmtree(place.reports, ignore_errors=True)


def read(run: Path) -> tuple[Outcomes, list[str]]:
    """The outcome of each check in each cell, as its last attempt says; and what is wrong with the records."""
    last: dict[str, tuple[int, dict[str, str]]] = {}
    problems = []
    seen: Counter[tuple[str, str, int]] = Counter()
    for path in sorted(run.glob("cells/*/*/*/attempt-*")):
        cell, number = "/".join(path.parts[-4:-1]), int(path.name.partition("-")[2])
        if not (path / "cell.json").is_file():
            problems.append(f"{cell} attempt {number} has no cell.json")
        records = _records(path, problems)
        seen.update((cell, str(record["check"]), number) for record in records)
        if number > last.get(cell, (0, {}))[0]:
            last[cell] = number, {str(record["check"]): str(record["outcome"]) for record in records}
    problems += [f"{check} is twice in {cell} attempt {number}" for (cell, check, number), n in seen.items() if n > 1]
    return {(cell, check): out for cell, (_, found) in last.items() for check, out in found.items()}, problems


def _records(attempt: Path, problems: list[str]) -> list[dict[str, Any]]:
    path = attempt / "records.jsonl"
    found = []
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        try:
            found += [json.loads(line)] if line else []
        except ValueError:
            problems.append(f"{path} holds a line that is no record")
    return found


# -- the kill ----------------------------------------------------------------------------------------------


def _hit(place: Place, baseline: Baseline, shot: Shot, rng: random.Random) -> subprocess.Popen[str]:
    """Begin runs until one is hit: how long a run takes depends on what else this machine does."""
    longest_s = baseline.seconds * 1.02
    wanted = shot.victim
    while True:
        clear(place)
        shot.victim = wanted
        begun = time.monotonic()
        running = place.start()
        if _kill(place, running, shot, rng.uniform(0.2, longest_s), rng):
            return running
        running.wait()
        longest_s = time.monotonic() - begun


def _kill(place: Place, running: subprocess.Popen[str], shot: Shot, moment: float, rng: random.Random) -> bool:
    """Wait for the moment, then for a victim to be there, and kill it; false when the run had ended before."""
    begun = time.monotonic()
    try:
        waiting.until(
            lambda: time.monotonic() - begun >= moment or running.poll() is not None,
            what="the moment of the shot",
            timeout_s=LIMIT_S,
            longest_pause_s=0.005,
        )
        name, pids, phase = waiting.until(
            lambda: _aim(place, running, shot.victim, rng), what="a victim", timeout_s=LIMIT_S, longest_pause_s=0.005
        )
    except WaitedTooLong as reason:
        raise Hangs(str(reason)) from reason
    shot.victim, shot.phase, shot.after_s = name, phase, round(time.monotonic() - begun, 2)
    hits = 0
    for pid in pids:
        if process.start_time(pid) is None:
            continue
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            hits += 1
    return hits > 0


def _aim(
    place: Place, running: subprocess.Popen[str], victim: str, rng: random.Random
) -> tuple[str, list[int], str] | None:
    """Whom to kill, and what he does; `None` while there is none.

    When all cells have ended there will be no other: then it is the controller that is hit.
    """
    run = place.runs()[-1] if place.runs() else None
    if victim == "everything" and running.poll() is None:
        return victim, _all_of(place), _phase_of_run(run)
    if victim == "controller" or running.poll() is not None or (run is not None and _is_over(run)):
        return "controller", [running.pid], _phase_of_run(run)
    cells = _living_cells(run) if run is not None else {}
    if victim == "cell" and cells:
        cell = rng.choice(sorted(cells))
        return victim, [cells[cell]], _phase_of_cell(run, cell)
    if victim == "hypervisor":
        machines = _living_machines(place)
        if machines:
            cell = rng.choice(sorted(machines))
            return victim, [machines[cell]], _phase_of_cell(run, cell)
    return None


def _all_of(place: Place) -> list[int]:
    """Every process of the place, as a power cut would hit them; the sweep itself is none of them."""
    return [int(line.partition(":")[0]) for line in leftovers.processes(place)]


def _living_cells(run: Path) -> dict[str, int]:
    begun = [event for event in _journal(run) if event["event"] == "cell-started"]
    return {e["cell"]: e["pid"] for e in begun if process.is_alive(e["pid"], e["pid_started"])}


def _living_machines(place: Place) -> dict[str, int]:
    """By cell: the process of QEMU, or the warden that holds User-Mode Linux."""
    found = {}
    for folder in place.machines.glob("*/*/*"):
        try:
            owner = json.loads((folder / "machine.json").read_text())["spec"]["owner"]
            holder = json.loads((folder / "process.json").read_text())
        except (OSError, ValueError):
            continue
        if process.is_alive(holder["pid"], holder["started"]):
            found[owner["cell"]] = holder["pid"]
    return found


def _journal(run: Path) -> list[dict[str, Any]]:
    try:
        lines = (run / "journal.jsonl").read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines]


def _is_over(run: Path) -> bool:
    events = _journal(run)
    return bool(events) and events[-1]["event"] == "run-finished"


def _phase_of_run(run: Path | None) -> str:
    if run is None:
        return "before the run is there"
    if _is_over(run):
        return "reports and site"
    phases = sorted({_phase_of_cell(run, cell) for cell in _living_cells(run)})
    return " + ".join(phases) or "between cells"


def _phase_of_cell(run: Path | None, cell: str) -> str:
    if run is None:
        return "?"
    if any(path.stat().st_size for path in run.glob(f"cells/{cell}/attempt-*/records.jsonl")):
        return "checks"
    told = [event["phase"] for event in _journal(run) if event["event"] == "cell-phase" and event["cell"] == cell]
    return told[-1] if told else "start"


def _forget_a_copy(place: Place, rng: random.Random) -> None:
    """Remove one saved machine, so that some cell boots cold and saves it again."""
    copies = sorted(path for path in place.cache.glob("warm/*/*") if not path.name.startswith("."))
    if copies:
        shutil.rmtree(rng.choice(copies))


# -- judging -------------------------------------------------------------------------------------------------


def _end_of(place: Place, running: subprocess.Popen[str]) -> int:
    try:
        return running.wait(LIMIT_S)
    except subprocess.TimeoutExpired:
        running.kill()
        running.wait()
        raise Hangs(f"a run did not end within {LIMIT_S:.0f} s: {place.said()[-500:]!r}") from None


def _blamed(run: Path, mismatches: list[str]) -> str:
    """What the records say of the kill; a failure of the product is a mismatch, nothing but the kill went wrong."""
    said: Counter[str] = Counter()
    for path in run.glob("cells/*/*/*/attempt-*"):
        for record in _records(path, mismatches):
            if record["outcome"] == "broken":
                said[f"{record['blame']}: {record['reason'][:160]}"] += 1
            if record["outcome"] == "failed":
                mismatches.append(f"blamed the product: {record['check']}: {record['reason'][:300]}")
    return "; ".join(said)


def _compare(place: Place, baseline: Baseline, shot: Shot) -> None:
    found, problems = read(place.runs()[-1])
    shot.mismatches += problems
    if len(place.runs()) > 1:
        shot.mismatches.append(f"{len(place.runs())} runs are there")
    if shot.resumed != baseline.exit_code:
        shot.mismatches.append(f"exit status {shot.resumed} after --resume: {place.said()[-600:]!r}")
    for key in sorted({*found, *baseline.outcomes}):
        if found.get(key) != baseline.outcomes.get(key):
            was, now = baseline.outcomes.get(key), found.get(key)
            shot.mismatches.append(f"{key[0]} {key[1]}: {was} undisturbed, {now} after --resume")
