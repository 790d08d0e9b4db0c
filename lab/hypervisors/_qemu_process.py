"""One QEMU process of a machine: start it with its keeper, hear its last words, end it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from lab import log, process, waiting
from lab.errors import HypervisorRefused, LabBusy, LabDiskFull, LabError, MachineVanished, WaitedTooLong
from lab.hypervisors import _qemu_arguments as arguments
from lab.hypervisors import _qemu_tpm as tpm
from lab.hypervisors._qemu_monitor import MonitorLost, talk
from lab.hypervisors._qemu_store import Directory, Running

START_LIMIT_S = 60.0
_CLOSING_S = 30.0  # for what ends by itself, which is at once on a machine that has time
_LOCKED_S = 20.0
_KEEPER = Path(__file__).with_name("_qemu_keeper.py")
_LOCK = re.compile(r'Failed to get (shared )?"[a-z ]+" lock')
_log = log.get(__name__)


class _ImageLocked(LabBusy):
    """Another QEMU, or a qemu-img, has an image open in a way that excludes this one."""


def start(directory: Directory, line: Sequence[str], incoming: Path | None) -> None:
    """Start QEMU with that command line and its keeper; returns when the monitor answers.

    An image that somebody else has locked is waited for: a qemu-img that reads it does so for a moment.
    Raises `LabBusy`, `LabDiskFull`, `MachineVanished`, `HypervisorRefused`.
    """
    patient_until = time.monotonic() + _LOCKED_S

    def started() -> bool:
        try:
            _start(directory, line, incoming)
        except _ImageLocked as reason:
            if time.monotonic() >= patient_until:
                raise
            _log.info("machine.image-locked", directory=directory.path, reason=reason)
            return False
        return True

    waiting.until(started, what="an image's lock", timeout_s=_LOCKED_S + START_LIMIT_S)


def _start(directory: Directory, line: Sequence[str], incoming: Path | None) -> None:
    directory.forget_process()
    profile = directory.read().spec.profile
    sockets = (directory.here / name for name in ("qmp.sock", "agent.sock", arguments.LINE_SOCKET))
    for left in (*sockets, *directory.here.glob("stderr.log*")):
        left.unlink(missing_ok=True)
    tpm.prepare(directory.here, profile)
    job = {
        "directory": str(directory.here),
        "console": str(directory.path),
        "argv": line,
        "incoming": None if incoming is None else str(incoming),
        "tpm": tpm.command(profile),
    }
    # -I -S: neither the environment nor site packages can change or slow the keeper.
    keeper = process.run([sys.executable, "-I", "-S", _KEEPER], timeout_s=START_LIMIT_S, stdin=json.dumps(job).encode())
    answer = json.loads(keeper.stdout or "{}")
    if "error" in answer:
        raise process.disk_full_or(OSError(answer["errno"], answer["error"]), f"starting {line[0]}")
    running = directory.running()
    if running is None:
        raise HypervisorRefused(
            f"the keeper of {directory.path.name} did not start QEMU: {keeper.stderr.strip()[-500:]}"
        )
    try:
        answers = lambda: _answers(directory, running)  # noqa: E731
        waiting.until(answers, what="QEMU's monitor to answer", timeout_s=START_LIMIT_S, longest_pause_s=0.03)
    except LabError:
        end(running)
        raise


def _answers(directory: Directory, running: Running) -> bool:
    if not running.is_alive():
        raise _start_error(directory, running)
    try:
        with talk(directory.here) as monitor:
            return bool(monitor.status())
    except MonitorLost:
        return False


def _start_error(directory: Directory, running: Running) -> LabError:
    said = last_words(directory, running)
    what = f"QEMU ended while starting: {said}"
    if "Could not set up host forwarding" in said:
        return LabBusy(f"a port of 127.0.0.1 is taken: {said}", hint="choose another ssh_port, or 0 for any free one")
    if "No space left on device" in said:
        return LabDiskFull(what, hint="free some space and run again")
    if "cannot set up guest memory" in said or "Cannot allocate memory" in said:
        return LabBusy(f"this machine has not enough free memory: {said}", hint="run fewer cells at once")
    if _LOCK.search(said):
        return _ImageLocked(f"somebody else has an image open: {said}", hint="end the program that uses it, run again")
    # Nobody but the system, out of memory, or a person ends a program so.
    return (MachineVanished if directory.events().exit_status == -signal.SIGKILL else HypervisorRefused)(what)


def last_words(directory: Directory, running: Running) -> str:
    """What a QEMU that has ended said, and how it ended."""
    try:
        # The keeper writes down what was still in the pipe, then ends.
        ended = lambda: not process.is_alive(running.keeper_pid, running.keeper_started)  # noqa: E731
        waiting.until(ended, what="the keeper to write QEMU's last words", timeout_s=_CLOSING_S)
    except WaitedTooLong as reason:
        _log.warning("keeper.lingers", reason=reason)
    status = directory.events().exit_status
    how = "" if status is None else f" (signal {-status})" if status < 0 else f" (exit status {status})"
    return (directory.complaint() or "it said nothing") + how


def ends(directory: Directory) -> bool:
    """Whether QEMU has ended, or does now: it closes its sockets a moment before its process is gone."""
    running = directory.running()
    try:
        waiting.until(lambda: running is None or not running.is_alive(), what="QEMU to end", timeout_s=_CLOSING_S)
    except WaitedTooLong:
        return False
    return True


def end(running: Running) -> None:
    """End QEMU and what came with it. Raises `HypervisorRefused`."""
    try:
        process.end_by_id(running.pid, running.started)
        # The keeper ends with QEMU, once it has written all that QEMU said; one that hangs would keep the files open.
        process.end_by_id(running.keeper_pid, running.keeper_started, patience_s=_CLOSING_S)
        # It ends with QEMU; the next start needs its files unlocked.
        process.end_by_id(running.tpm_pid, running.tpm_started, patience_s=_CLOSING_S)
    except subprocess.SubprocessError as reason:
        raise HypervisorRefused(f"QEMU, process {running.pid}, cannot be ended: {reason}") from reason
    if running.is_alive():
        raise HypervisorRefused(f"QEMU, process {running.pid}, cannot be ended")
