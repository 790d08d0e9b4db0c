"""Some shots of the sweep, always the same, the first at each kind of victim: killed runs go on as if nothing was."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

pytestmark = [pytest.mark.minutes, pytest.mark.timeout(1200)]


def sweep(work: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the sweep to its end."""
    return subprocess.run(
        [sys.executable, "-m", "tests.sweep", "--work", str(work), *words],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1100,
        check=False,
    )


@pytest.mark.parametrize(
    ("driver", "kills", "seed"), [("real", 5, 5), ("simulated", 6, 3)], ids=["real guests", "simulated hosts"]
)
def test_a_run_killed_at_any_moment_is_resumed_to_the_records_of_an_undisturbed_one(
    tmp_path: Path, driver: str, kills: int, seed: int
) -> None:
    words = ("--driver", driver, "--cells", "2", "--kills", str(kills), "--seed", str(seed))

    finished = sweep(tmp_path / "sweep", *words)

    assert finished.returncode == 0, finished.stdout
    assert finished.stdout.splitlines()[-1] == f"{kills} kills, 0 of them not survived"


def test_a_sweep_that_was_interrupted_goes_on_where_it_was(tmp_path: Path) -> None:
    words = ("--driver", "simulated", "--cells", "2", "--seed", "3")
    first = sweep(tmp_path / "sweep", *words, "--kills", "1")

    second = sweep(tmp_path / "sweep", *words, "--kills", "2")

    assert first.stdout.splitlines()[0].startswith("0: controller at ")
    assert second.stdout.splitlines()[0].startswith("1: cell at ")
    assert len((tmp_path / "sweep" / "shots.jsonl").read_text().splitlines()) == 2
