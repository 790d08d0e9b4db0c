"""The folder of the server that forks cells: gone at the end of its process, and after a kill at the next run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
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


def test_a_process_that_ends_leaves_nothing_and_says_nothing(tmp_path: Path) -> None:
    ended = use(tmp_path, "well")

    made, temporary = ended.stdout.split()
    assert (ended.returncode, ended.stderr) == (0, "")
    assert Path(made).parent.parent == tmp_path
    assert temporary == str(tmp_path), "other temporary files go where they always went"
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_goes_with_the_next(tmp_path: Path) -> None:
    killed = use(tmp_path, "killed")
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1

    use(tmp_path, "well")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["interop-lab-notes", "interop-lab-1.x", "other"])
def test_what_is_not_ours_stays(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()

    use(tmp_path, "well")

    assert [path.name for path in tmp_path.iterdir()] == [name]
