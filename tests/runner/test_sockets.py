"""The folder of the server that forks cells: gone at the end of its process, and after a kill at the next run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

USER = """
import os, signal, sys, tempfile
from multiprocessing import util
from lab.runner.executors import _sockets
_sockets.prepare()
_sockets.prepare()
print(util.get_temp_dir(), tempfile.gettempdir(), flush=True)
if sys.argv[1] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""


def use(folder: Path, end: str) -> subprocess.CompletedProcess[str]:
    """A process that prepares its folder below `folder` and ends."""
    environment = {**os.environ, "TMPDIR": str(folder)}
    return subprocess.run(
        [sys.executable, "-c", USER, end], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short name, which pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="lab-", dir="/tmp") as folder:
        yield Path(folder)


def test_a_folder_whose_name_is_too_long_for_a_socket_is_not_used(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 50)
    long.mkdir()

    ended = use(long, "well")

    made, temporary = ended.stdout.split()
    assert (ended.returncode, ended.stderr) == (0, "")
    assert Path(made).parent.parent == Path("/tmp")
    assert len(made) + len("/listener-12345678") <= 107
    assert temporary == str(long), "other temporary files go where they always went"
    assert not Path(made).parent.exists()


def test_a_process_that_ends_leaves_nothing_and_says_nothing(short: Path) -> None:
    ended = use(short, "well")

    made, temporary = ended.stdout.split()
    assert (ended.returncode, ended.stderr) == (0, "")
    assert Path(made).parent.parent == short
    assert temporary == str(short), "other temporary files go where they always went"
    assert list(short.iterdir()) == []


def test_what_a_killed_process_left_goes_with_the_next(short: Path) -> None:
    killed = use(short, "killed")
    assert killed.returncode == -signal.SIGKILL
    assert len(list(short.iterdir())) == 1

    use(short, "well")

    assert list(short.iterdir()) == []


@pytest.mark.parametrize("name", ["interop-lab-notes", "interop-lab-1.x", "other"])
def test_what_is_not_ours_stays(short: Path, name: str) -> None:
    (short / name).mkdir()

    use(short, "well")

    assert [path.name for path in short.iterdir()] == [name]
