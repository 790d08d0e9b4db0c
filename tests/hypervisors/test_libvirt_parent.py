"""The parent of the lab's own libvirtd: it asks how everything below it ended, and ends after the last of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import waiting
from lab.hypervisors import _libvirt_parent

# Leaves a process behind that is nobody's child any more, says its id, and ends with 3 when it is told to.
PROGRAM = "(sleep 300 >/dev/null 2>&1 & echo $!); read go; exit 3"


@pytest.fixture
def parent() -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, "-I", "-S", _libvirt_parent.__file__, "/bin/sh", "-c", PROGRAM]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as started:
        yield started
        started.kill()


def orphan_of(parent: subprocess.Popen[str]) -> int:
    assert parent.stdout is not None
    return int(parent.stdout.readline())


def children_of(parent: subprocess.Popen[str]) -> list[int]:
    return [int(word) for word in Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()]


def is_gone(pid: int) -> bool:
    """A zombie is not gone."""
    return not Path(f"/proc/{pid}").exists()


def test_what_its_program_left_behind_is_its_child_and_no_zombie_stays(parent: subprocess.Popen[str]) -> None:
    orphan = orphan_of(parent)
    # Until the shell between them has ended it is that one's.
    waiting.until(lambda: orphan in children_of(parent), what="the orphan to be adopted", timeout_s=60)

    os.kill(orphan, signal.SIGKILL)

    waiting.until(lambda: is_gone(orphan), what="the orphan to be gone", timeout_s=60)


def test_it_outlives_its_program_and_has_its_exit_status_at_the_end(parent: subprocess.Popen[str]) -> None:
    orphan = orphan_of(parent)
    assert parent.stdin is not None
    parent.stdin.write("go\n")
    parent.stdin.flush()
    waiting.until(lambda: children_of(parent) == [orphan], what="the program to end", timeout_s=60)

    os.kill(orphan, signal.SIGKILL)

    assert parent.wait(60) == 3


def test_a_request_to_end_goes_to_its_program(parent: subprocess.Popen[str]) -> None:
    orphan = orphan_of(parent)

    parent.terminate()

    waiting.until(lambda: children_of(parent) == [orphan], what="the program to end", timeout_s=60)
    os.kill(orphan, signal.SIGKILL)
    assert parent.wait(60) != 0
