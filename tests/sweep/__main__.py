"""The sweep: kills runs at random moments, resumes them, and compares with an undisturbed run.

python -m tests.sweep --work DIR --kills 60 [--seed 1] [--driver real|simulated] [--cells 6] [--write]

The work folder keeps what was found, one line a shot, so a sweep that is interrupted goes on where it was. Ends with 1
when a shot did not leave the records of an undisturbed run, or left something behind. `--write` writes the page
docs/reference/sweep.md from the work folder and from those named by `--also`, without any shot.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from lab.results import lines
from tests.sweep import page, shot
from tests.sweep.place import Place


def main(words: Sequence[str]) -> int:
    """Returns the exit status."""
    wanted = _parse(words)
    place = Place(wanted.work.resolve(), wanted.driver, wanted.cells)
    if wanted.write:
        folders = [place.root, *(path.resolve() for path in wanted.also)]
        page.PAGE.write_text(page.text([(_title(folder), _shots(folder)) for folder in folders]))
        return 0
    place.root.mkdir(parents=True, exist_ok=True)
    folder = os.open(place.root, os.O_RDONLY)  # held to the end of this process
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"another sweep works in {place.root}")  # noqa: T201
        return 2
    place.make()
    about = {"driver": wanted.driver, "cells": wanted.cells, "seed": wanted.seed}
    (place.root / "about.json").write_text(json.dumps(about))
    known = _shots(place.root)
    baseline = _baseline(place)
    for number in range(len(known), wanted.kills):
        shot.clear(place)
        made = shot.fire(place, baseline, number=number, seed=wanted.seed)
        lines.append(_results(place.root), json.dumps(asdict(made)))
        _tell(made)
        if made.mismatches or made.left:
            # What it left must not be counted again, and is kept to be looked at.
            place.reports.rename(place.root / f"reports-of-{number}")
    shots = _shots(place.root)
    bad = [made for made in shots if made.mismatches or made.left]
    print(f"{len(shots)} kills, {len(bad)} of them not survived")  # noqa: T201
    return 1 if bad else 0


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.sweep", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--driver", choices=("real", "simulated"), default="real")
    parser.add_argument("--cells", type=int, choices=range(2, 7), default=6)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--also", type=Path, action="append", default=[])
    return parser.parse_args(words)


def _baseline(place: Place) -> shot.Baseline:
    """The undisturbed run; once for a work folder."""
    kept = place.root / "baseline.json"
    if not kept.exists():
        made = shot.undisturbed(place)
        rows = [[cell, check, outcome] for (cell, check), outcome in sorted(made.outcomes.items())]
        lines.replace(kept, json.dumps({"outcomes": rows, "exit_code": made.exit_code, "seconds": made.seconds}))
    told = json.loads(kept.read_text())
    outcomes = {(cell, check): outcome for cell, check, outcome in told["outcomes"]}
    return shot.Baseline(outcomes, told["exit_code"], told["seconds"])


def _results(folder: Path) -> Path:
    return folder / "shots.jsonl"


def _shots(folder: Path) -> list[shot.Shot]:
    return [shot.Shot(**json.loads(line.data)) for line in lines.read(_results(folder))]


def _title(folder: Path) -> str:
    about = json.loads((folder / "about.json").read_text())
    kind = "Real guests (QEMU and User-Mode Linux)" if about["driver"] == "real" else "Simulated hosts, without guests"
    seconds = json.loads((folder / "baseline.json").read_text())["seconds"]
    return f"{kind}: {about['cells']} cells, seed {about['seed']}, {seconds:.0f} s undisturbed"


def _tell(made: shot.Shot) -> None:
    well = "well" if not made.mismatches and not made.left else "NOT WELL"
    line = f"{made.number}: {made.victim} at {made.after_s} s ({made.phase}): {well}, {made.seconds} s"
    print("\n  ".join((line, *made.mismatches, *made.left)), flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
