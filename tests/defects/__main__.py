"""Seeded defects by hand: list them, try some of them or all.

python -m tests.defects list
python -m tests.defects try [NAME ...] [--checks few|near|all] [--place DIR] [--jobs N]
python -m tests.defects soak [CELLS] [--checks smoke|all] [--times N] [--seconds S] [--jobs N]
python -m tests.defects table [--place DIR ...]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.defects import catalogue, soak, soak_page, sweep, table


def main() -> int:
    """The exit status: 1 when a defect was missed or something cried out without cause."""
    parser = argparse.ArgumentParser(prog="python -m tests.defects", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="every defect and what it must bring down")
    trying = commands.add_parser("try", help="seed defects and say what noticed them")
    trying.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    trying.add_argument("--checks", choices=("few", "near", "all"), default="near", help="how much to look at")
    trying.add_argument("--place", type=Path, default=sweep.default_place(), help="for machines and results; kept")
    trying.add_argument("--left", action="store_true", help="only those that have no result yet")
    trying.add_argument("--jobs", type=int, default=1, help="how many at once")
    one = commands.add_parser("one", help="one trial in this process; writes RESULT")
    one.add_argument("name")
    one.add_argument("result", type=Path)
    one.add_argument("scope")
    one.add_argument("--place", type=Path, required=True)
    soaking = commands.add_parser("soak", help="checks in guests without defect, again and again; goes on where it was")
    soaking.add_argument("cells", nargs="?", default="*", help="glob over HOST/GUEST/PROFILE")
    soaking.add_argument("--checks", choices=soak.SCOPES, default="all", help="those of level smoke, or all")
    soaking.add_argument("--times", type=int, default=20, help="rounds of each cell, with those before")
    soaking.add_argument("--jobs", type=int, default=1, help="how many rounds at once")
    soaking.add_argument("--seconds", type=float, default=float("inf"), help="begin no round after so long")
    soaking.add_argument("--place", type=Path, default=sweep.default_place())
    turn = commands.add_parser("round", help="one round of a soak in this process; writes RESULT")
    turn.add_argument("cell")
    turn.add_argument("number", type=int)
    turn.add_argument("result", type=Path)
    turn.add_argument("--checks", choices=soak.SCOPES, required=True)
    turn.add_argument("--place", type=Path, required=True)
    tabled = commands.add_parser(
        "table", help="write the results, docs/reference/defects.md and docs/reference/soak.md"
    )
    tabled.add_argument("--place", type=Path, action="append", help="where results are; repeatable")
    words = parser.parse_args()
    if words.command == "table":
        places = words.place or [sweep.default_place()]
        table.write(table.gather(places))
        soak_page.PAGE.write_text(soak_page.page(soak.read()))
        return 0
    if words.command == "round":
        soak.one((words.cell, words.checks, words.number), words.place, words.result)
        return 0
    if words.command == "soak":
        failed = 0
        wanted = soak.Soak(words.cells, words.checks, words.times, words.place)
        for done in wanted.run(jobs=words.jobs, seconds=words.seconds):
            failed += not done.clean
            sys.stdout.write(soak.told(done))
            sys.stdout.flush()
        return int(failed > 0)
    if words.command == "list":
        for defect in catalogue.DEFECTS:
            sys.stdout.write(f"{defect.name:34} {defect.cell:30} {', '.join(defect.breaks) or '-'}\n")
        return 0
    if words.command == "one":
        sweep.one(catalogue.by_name(words.name), words.place, words.result, words.scope)
        return 0
    chosen = [catalogue.by_name(name) for name in words.names] or list(catalogue.DEFECTS)
    if words.left:
        chosen = [defect for defect in chosen if not sweep.kept(defect, words.place, words.checks).exists()]
    bad = 0
    for result in sweep.every(chosen, words.place, words.checks, jobs=words.jobs):
        bad += result.word != "caught" and bool(catalogue.by_name(result.defect).breaks)
        sys.stdout.write(sweep.told(result))
        sys.stdout.flush()
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
