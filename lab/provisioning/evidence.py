"""Evidence: what a machine leaves behind for the reader, collected before it is destroyed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lab import log
from lab.contracts import Machine
from lab.errors import LabError
from lab.guests.guest import Guest

_log = log.get(__name__)

KERNEL_LOG_LIMIT = 4 << 20


def collect(machine: Machine, directory: Path, *, guest: Guest | None) -> None:
    """Add console, kernel log and the commands that reproduce the machine to the cell's directory.

    Never raises what the machine or the guest does wrong: a missing piece is written down in its place,
    because the outcome that brought us here matters more.
    """
    _append(directory / "console.log", machine.console)
    _append(directory / "reproduce.txt", lambda: machine.reproduce().encode())
    if guest is not None:
        _append(directory / "kernel.log", lambda: guest.run("dmesg", timeout_s=20.0).stdout[:KERNEL_LOG_LIMIT])


def _append(path: Path, read: Callable[[], bytes]) -> None:
    try:
        content = read()
    except LabError as reason:
        _log.warning("evidence.missing", path=path.name, reason=reason)
        content = f"(not collected: {reason})\n".encode()
    try:
        with path.open("ab") as file:
            file.write(content)
            if content and not content.endswith(b"\n"):
                file.write(b"\n")
    except OSError as reason:
        # The machine must be destroyed all the same; the cell's own files tell of the full disk.
        _log.warning("evidence.not_written", path=path.name, reason=reason)
