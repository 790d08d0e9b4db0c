"""Programs of this machine: run one with a limit, and end those that the lab started."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import waiting
from lab.errors import CommandFailed, LabDiskFull, MissingTool, WaitedTooLong

_SHOWN_OUTPUT = 2000
# Nobody survives SIGKILL, but a machine that is short of time or of memory takes a while to carry it out.
_KILLED_WITHIN_S = 60.0


@dataclass(frozen=True)
class Finished:
    """What a program of this machine left: exit status and output, decoded with replacement."""

    status: int
    stdout: str
    stderr: str


def find(program: str, *, package: str) -> str:
    """The path of a program; `package` is Debian's name for what to install.

    Raises `MissingTool`.
    """
    # /usr/sbin is not on an ordinary user's path, and mke2fs lives there.
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin:/usr/local/sbin")
    if path is None:
        raise MissingTool(f"{program} is not on this machine", hint=f"apt-get install {package}")
    return path


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    timeout_s: float,
    stdin: bytes = b"",
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Finished:
    """Run to the end; a non-zero exit is a result. Raises `CommandFailed` at the limit, `MissingTool`."""
    words = [os.fspath(word) for word in argv]
    try:
        with subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=None if environment is None else {**os.environ, **environment},
            start_new_session=True,
        ) as process:
            try:
                out, err = process.communicate(stdin, timeout=timeout_s)
            except BaseException as reason:
                _kill_group(process.pid)
                process.communicate()
                if isinstance(reason, subprocess.TimeoutExpired):
                    raise CommandFailed(f"{words[0]} did not end within {timeout_s:.0f} s: {' '.join(words)}") from None
                raise
    except FileNotFoundError as reason:
        raise MissingTool(f"{words[0]} is not on this machine") from reason
    except OSError as reason:
        raise disk_full_or(reason, f"starting {words[0]}") from reason
    return Finished(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))


def check(
    argv: Sequence[str | os.PathLike[str]], *, timeout_s: float, stdin: bytes = b"", cwd: Path | None = None
) -> str:
    """Run to the end and return standard output; raise `CommandFailed` (or `LabDiskFull`) on a non-zero exit."""
    finished = run(argv, timeout_s=timeout_s, stdin=stdin, cwd=cwd)
    if finished.status != 0:
        said = (finished.stderr or finished.stdout).strip()[-_SHOWN_OUTPUT:]
        words = " ".join(os.fspath(word) for word in argv)
        if "No space left on device" in said:
            raise LabDiskFull(f"{words}: {said}", hint="free some space, or point XDG_CACHE_HOME at a larger disk")
        raise CommandFailed(f"{words} ended with status {finished.status}: {said}")
    return finished.stdout


def disk_full_or(reason: OSError, doing: str) -> LabDiskFull | CommandFailed:
    """The lab's own error for an `OSError` met while `doing` something."""
    if reason.errno in (errno.ENOSPC, errno.EDQUOT):
        return LabDiskFull(f"no space left on this machine while {doing}", hint="free some space and run again")
    return CommandFailed(f"{doing}: {reason}")


def end(process: subprocess.Popen[bytes], *, patience_s: float = 3.0) -> None:
    """Ask a process that we started to end, then make it; reap it. Safe to call twice."""
    for ask, limit_s in ((process.terminate, patience_s), (process.kill, _KILLED_WITHIN_S)):
        if process.poll() is not None:
            return
        ask()
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            continue


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; with its id it names one process for ever.

    `None` when there is no such process or only its zombie (proc(5), /proc/PID/stat, fields 3, 20 and 22). One whose
    first thread has ended and others not shows as a zombie too, and is none: it still has files and children.
    """
    try:
        after_name = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    is_over = after_name[0] in (b"Z", b"X") and int(after_name[17]) <= 1
    return None if is_over else int(after_name[19])


def is_alive(pid: int, started: int) -> bool:
    """Whether exactly that process (id and start time) still runs."""
    return start_time(pid) == started


def end_by_id(pid: int, started: int, *, patience_s: float = 3.0) -> None:
    """End a process that an earlier, dead run of ours started; never another one that took over its id."""
    for sent, limit_s in ((signal.SIGTERM, patience_s), (signal.SIGKILL, _KILLED_WITHIN_S)):
        if not is_alive(pid, started):
            return
        try:
            os.kill(pid, sent)
            waiting.until(lambda: not is_alive(pid, started), what=f"process {pid} to end", timeout_s=limit_s)
        except (ProcessLookupError, WaitedTooLong):
            continue


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
