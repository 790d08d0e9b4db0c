"""What the agent in the guest of a QEMU machine does for us: programs, files, addresses, file systems at rest."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import PurePath

from lab import waiting
from lab.contracts import CommandResult
from lab.errors import CommandTimedOut, GuestUnreachable, HypervisorRefused, WaitedTooLong
from lab.hypervisors import _guest_agent as agents
from lab.hypervisors import _qemu_agent
from lab.hypervisors._guest_agent import AgentRefused
from lab.hypervisors._qemu_store import Directory

ANSWER_S = 20.0  # a slow guest under load; the agent itself answers at once
FILE_S = 300.0
_OUTPUT_BOUND = 4 << 20  # of a stream, as over SSH
# qga/commands.c: GUEST_EXEC_MAX_OUTPUT, 16 MiB of each stream, and base64 makes 4 bytes of 3.
_EXEC_ANSWER_BYTES = 48 << 20
_CHUNK = 192 << 10


def answers(directory: Directory) -> bool:
    """Whether an agent answers now; waits a little for it."""
    try:
        with _qemu_agent.talk(directory, timeout_s=ANSWER_S / 4) as agent:
            agent.command("guest-ping")
    except (GuestUnreachable, AgentRefused, HypervisorRefused):
        return False
    return True


def run(directory: Directory, argv: Sequence[str], stdin: bytes, timeout_s: float) -> CommandResult:
    """Raises `GuestUnreachable`, `CommandTimedOut`; a program that is not there ends with 127, as in a shell."""
    started = time.monotonic()
    with _qemu_agent.talk(directory, timeout_s=timeout_s + ANSWER_S) as agent:
        ask = agent.command
        try:
            pid = agents.begin(ask, argv, stdin)
        except AgentRefused as reason:
            if not agents.is_no_program(reason):
                raise
            return CommandResult(tuple(argv), 127, b"", reason.what.encode(), time.monotonic() - started)
        left_s = max(0.0, timeout_s - (time.monotonic() - started))
        ended = lambda: agents.ended(ask, pid, limit_bytes=_EXEC_ANSWER_BYTES)  # noqa: E731
        try:
            told = waiting.until(ended, what=argv[0], timeout_s=left_s)
        except WaitedTooLong:
            agent.command("guest-exec", {"path": "kill", "arg": ["-KILL", str(pid)]})
            raise CommandTimedOut(f"{argv[0]!r} did not end within {timeout_s:.0f} s") from None
    out, cut_out = agents.stream(told, "out", _OUTPUT_BOUND)
    err, cut_err = agents.stream(told, "err", _OUTPUT_BOUND)
    return CommandResult(tuple(argv), agents.status(told), out, err, time.monotonic() - started, cut_out or cut_err)


def read(directory: Directory, path: PurePath, limit_bytes: int) -> bytes:
    """Raises `GuestCommandFailed` when it cannot be read or is larger than the limit, `GuestUnreachable`."""
    with _qemu_agent.talk(directory, timeout_s=FILE_S) as agent:
        return agents.read(agent.command, path, limit_bytes, chunk_bytes=_CHUNK)


def write(directory: Directory, path: PurePath, data: bytes) -> None:
    """Raises `GuestCommandFailed` when it cannot be written, `GuestUnreachable`."""
    with _qemu_agent.talk(directory, timeout_s=FILE_S) as agent:
        agents.write(agent.command, path, data, chunk_bytes=_CHUNK)


def addresses(directory: Directory) -> Mapping[str, Sequence[str]]:
    """IP addresses by MAC address, without the loopback card; what is neither is left out."""
    with _qemu_agent.talk(directory, timeout_s=ANSWER_S) as agent:
        return agents.addresses(agent.command)


def freeze(directory: Directory) -> int:
    """How many file systems came to rest. Raises `HypervisorRefused`, `NotSupported`, `GuestUnreachable`."""
    with _qemu_agent.talk(directory, timeout_s=FILE_S) as agent:
        return agents.freeze(agent.command)


def thaw(directory: Directory) -> int:
    """How many go on; none when none was at rest."""
    with _qemu_agent.talk(directory, timeout_s=FILE_S) as agent:
        return agents.thaw(agent.command)
