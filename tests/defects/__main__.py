"""Seeded defects by hand: list them, try some of them or all.

python -m tests.defects list
python -m tests.defects try [NAME ...] [--all-checks] [--place DIR] [--jobs N]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.defects import catalogue, soak, sweep, table


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
    soaking = commands.add_parser("soak", help="every check in guests without defect, again and again")
    soaking.add_argument("cells", nargs="?", default="*", help="glob over HOST/GUEST/PROFILE")
    soaking.add_argument("--times", type=int, default=20)
    soaking.add_argument("--place", type=Path, default=sweep.default_place())
    turn = commands.add_parser("round", help="one round of a soak in this process")
    turn.add_argument("cell")
    turn.add_argument("number", type=int)
    turn.add_argument("--place", type=Path, required=True)
    tabled = commands.add_parser("table", help="write the results and docs/reference/defects.md")
    tabled.add_argument("--place", type=Path, action="append", help="where results are; repeatable")
    words = parser.parse_args()
    if words.command == "table":
        places = words.place or [sweep.default_place()]
        table.write(table.gather(places), table.gather_rounds(places))
        return 0
    if words.command == "round":
        soak.one(words.cell, words.number, words.place)
        return 0
    if words.command == "soak":
        failed = 0
        for done in soak.rounds(words.cells, words.times, words.place):
            failed += bool(done.failures)
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
