"""The runner: what a cell costs that does nothing, for 200 and for 1,000 cells, and what the site then costs.

    python benchmarks/runner_overhead.py

Counted is the whole process from its start to the end of its run: the plan, the journal, a process for each cell
with pytest and one check in it, its files, JUnit and Allure at the end. Beside it a server that forks as many
processes that do nothing at all, as many at once.
"""

from __future__ import annotations

import multiprocessing
import os
import shlex
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import place, spent  # noqa: E402 - also run as a file
from benchmarks.row import Row  # noqa: E402

FEW, MANY = 200, 1000
LIMIT_MS = 20.0
LINEAR = 1.3
LONGEST_S = 120.0  # that many cells may take; all benchmarks together have ten minutes
SITE_LIMIT_MS = 9.0  # a cell: 5,000 of them in 45 s, which was too slow


def measure() -> list[Row]:
    """Runs of both sizes, as many empty forks, and the site of the larger run."""
    with tempfile.TemporaryDirectory(prefix="lab-benchmark-") as name:
        folder = Path(name)
        at_once = max(1, len(os.sched_getaffinity(0)))
        runs = {count: _Runs(folder / str(count), count, at_once) for count in (FEW, MANY)}
        pilot = runs[FEW].one()
        if pilot.wall_s / FEW * MANY > LONGEST_S:
            each_ms = pilot.wall_s / FEW * 1000
            raise spent.Failed(f"{each_ms:.0f} ms a cell of {FEW}: this machine is too busy to measure {MANY:,}")
        sides = {str(count): run.one for count, run in runs.items()}
        sides["forks"] = lambda: _script("--forks", str(MANY), str(at_once))
        taken = spent.in_turns(sides, 2, budget_s=90.0)
        site = runs[MANY].site()
    few, many, forks = (spent.median(taken[name]) for name in (str(FEW), str(MANY), "forks"))
    each_ms = many.wall_s / MANY * 1000
    growth = (many.cpu_s / MANY) / (few.cpu_s / FEW)
    return [
        Row(
            f"a cell that does nothing, {MANY:,} of them, {at_once} at once",
            f"{each_ms:.1f} ms, of processors {many.cpu_s / MANY * 1000:.1f} ms",
            f"{many.cpu_s / forks.cpu_s:.1f} x an empty fork ({forks.wall_s / MANY * 1000:.1f} ms)",
            f"{LIMIT_MS:g} ms",
            each_ms <= LIMIT_MS,
        ),
        Row(
            f"the same, {FEW} and {MANY:,} of them",
            f"{few.cpu_s / FEW * 1000:.1f} and {many.cpu_s / MANY * 1000:.1f} ms of processors",
            f"{growth:.2f} x a cell when there are {MANY // FEW} times as many",
            f"{LINEAR:g} x",
            growth <= LINEAR,
        ),
        Row(
            f"the site of {MANY:,} cells",
            f"{site.wall_s:.1f} s",
            f"{site.cpu_s / many.cpu_s:.2f} x their run",
            f"{SITE_LIMIT_MS * MANY / 1000:g} s",
            site.wall_s <= SITE_LIMIT_MS * MANY / 1000,
        ),
    ]


class _Runs:
    """Runs of one size, each in a folder of its own."""

    def __init__(self, folder: Path, cells: int, at_once: int) -> None:
        self._folder, self._cells, self._done = folder, cells, 0
        folder.mkdir()
        self._inventory = place.inventory(folder, cells=cells, at_once=at_once)
        place.suites(folder, checks=1, fixture="hypervisor", body="assert hypervisor.name")

    @property
    def _reports(self) -> Path:
        return self._folder / f"reports-{self._done}"

    def one(self) -> spent.Spent:
        self._done += 1
        taken = _script("--run", str(self._inventory), str(self._reports))
        self._must_have_passed()
        return taken

    def site(self) -> spent.Spent:
        (run,) = (self._reports / "runs").iterdir()
        out = self._folder / "site"
        taken = spent.on([sys.executable, "-m", "lab", "report", str(run), "--out", str(out)], cwd=ROOT)
        if not (out / "index.html").is_file():
            raise spent.Failed("no site was written")
        return taken

    def _must_have_passed(self) -> None:
        from lab.results.record import Outcome
        from lab.results.store import Run

        (found,) = (self._reports / "runs").iterdir()
        outcomes = Counter(record.outcome for record in Run.open(found).records())
        if outcomes != {Outcome.PASSED: self._cells}:
            raise spent.Failed(f"of {self._cells} cells {dict(outcomes)} were measured")


def _script(*words: str) -> spent.Spent:
    # With -c, because every process that multiprocessing starts runs its parent's main module anew, this one as well.
    program = "import sys; from benchmarks import runner_overhead; sys.exit(runner_overhead.main(sys.argv[1:]))"
    return spent.on([sys.executable, "-c", program, *words], cwd=ROOT)


def _run(inventory: Path, reports: Path) -> int:
    """What `lab run` does before it writes the site."""
    from rich.console import Console

    from lab import catalogue
    from lab.inventory.load import load
    from lab.runner import plan, run

    loaded = load(inventory)
    checks = catalogue.load(loaded.suites)
    made = plan.make(loaded, checks, suite=None, select=(), exclude=())
    wish = run.Wish(str(inventory), reports, shlex.join(sys.argv))
    return int(run.new(loaded, checks, made, wish, Console(quiet=True)).execute())


def _forks(count: int, at_once: int) -> int:
    context = multiprocessing.get_context("forkserver")
    running: list[multiprocessing.process.BaseProcess] = []
    for _ in range(count):
        if len(running) == at_once:
            running.pop(0).join()
        process = context.Process(target=os.getpid)
        process.start()
        running.append(process)
    for left in running:
        left.join()
    return 0


def main(words: Sequence[str]) -> int:
    match words:
        case ["--run", inventory, reports]:
            return _run(Path(inventory), Path(reports))
        case ["--forks", count, at_once]:
            return _forks(int(count), int(at_once))
        case _:
            pass
    for row in measure():
        print(*row.cells(), sep="  ")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
