"""Programs of this machine: run with a limit, named by id and start time, ended without harm to others."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab import process, waiting
from lab.errors import CommandFailed, LabDiskFull, MissingTool


def test_a_missing_program_is_named_with_its_package() -> None:
    with pytest.raises(MissingTool) as caught:
        process.find("no-such-program-xyz", package="xyz-tools")

    assert str(caught.value) == "no-such-program-xyz is not on this machine\n  -> apt-get install xyz-tools"


def test_a_non_zero_exit_is_a_result() -> None:
    finished = process.run(["sh", "-c", "echo out; echo err >&2; exit 3"], timeout_s=60.0)

    assert (finished.status, finished.stdout, finished.stderr) == (3, "out\n", "err\n")


def test_check_raises_with_what_the_program_said() -> None:
    with pytest.raises(CommandFailed, match=r"ended with status 4: no luck$"):
        process.check(["sh", "-c", "echo no luck >&2; exit 4"], timeout_s=60.0)


def test_a_program_that_does_not_end_is_killed_with_its_children() -> None:
    marker = f"47{os.getpid()}"

    with pytest.raises(CommandFailed, match="did not end within 1 s"):
        process.run(["sh", "-c", f"sleep {marker} & sleep {marker}"], timeout_s=1.0)

    def gone() -> bool:
        lines = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
        return f"sleep {marker}" not in lines

    waiting.until(gone, what="the children to be gone", timeout_s=60.0)


def test_a_full_disk_is_told_from_other_failures() -> None:
    full = process.disk_full_or(OSError(errno.ENOSPC, "No space left on device"), "writing x")
    other = process.disk_full_or(OSError(errno.EACCES, "Permission denied"), "writing x")

    assert isinstance(full, LabDiskFull)
    assert not isinstance(other, LabDiskFull)
    assert "writing x" in str(other)


def test_check_tells_a_full_disk_from_the_programs_words() -> None:
    with pytest.raises(LabDiskFull):
        process.check(["sh", "-c", "echo 'write: No space left on device' >&2; exit 1"], timeout_s=60.0)


def test_a_reused_process_id_is_not_taken_for_the_old_process() -> None:
    own = os.getpid()
    started = process.start_time(own)
    assert started is not None

    assert process.is_alive(own, started)
    assert not process.is_alive(own, started - 1)


def test_a_process_that_ended_has_no_start_time() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()

    assert process.start_time(ended.pid) is None


_FIRST_THREAD_ENDS = """
import ctypes, threading
threading.Thread(target=input).start()
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_process_lives_whose_first_thread_alone_has_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", _FIRST_THREAD_ENDS], stdin=subprocess.PIPE) as other:
        started = process.start_time(other.pid)
        assert started is not None
        state = Path(f"/proc/{other.pid}/stat")
        waiting.until(lambda: b") Z " in state.read_bytes(), what="the first thread to end", timeout_s=60)

        assert process.is_alive(other.pid, started)

        other.kill()
        waiting.until(lambda: not process.is_alive(other.pid, started), what="the others to end", timeout_s=60)


def test_ending_by_id_leaves_a_process_alone_whose_start_time_differs() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        started = process.start_time(other.pid)
        assert started is not None

        process.end_by_id(other.pid, started + 1)
        assert other.poll() is None

        process.end_by_id(other.pid, started)
        assert other.wait(60) != 0


def test_the_limit_of_open_output_does_not_block(tmp_path: Path) -> None:
    finished = process.run(["sh", "-c", "yes | head -c 3000000"], timeout_s=60.0, cwd=tmp_path)

    assert len(finished.stdout) == 3_000_000
