"""The QEMU guest agent's protocol: one line of JSON each way, over a virtio-serial port.

The agent belongs to the guest, so nothing of it is believed: every answer is bounded in bytes and in time, and its
shape is checked. The protocol is that of QEMU's docs/interop/qemu-ga-ref ("guest-sync-delimited": what came before
the byte 0xFF is left from somebody else's conversation).
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lab import waiting
from lab.errors import GuestUnreachable, WaitedTooLong
from lab.hypervisors import _machine_directory as files
from lab.hypervisors import _qemu_power as power
from lab.hypervisors._guest_agent import ANSWER_BYTES, AgentRefused
from lab.hypervisors._qemu_store import Directory

SOCKET = "agent.sock"
_STALE_BYTES = 64 << 20  # what the guest may have left on the line: the longest answer, and some more
_STALE_LINES = 1000
_DELIMITER = b"\xff"
_SHOWN = 300


class Agent:
    """An open conversation with the agent of one machine, until a deadline."""

    def __init__(self, connection: socket.socket, name: str, deadline: float) -> None:
        self._connection, self._name, self._deadline = connection, name, deadline
        self._rest = b""

    def synchronise(self) -> None:
        """Make sure that what comes next answers us. Raises `GuestUnreachable`."""
        number = secrets.randbelow(1 << 31)
        # The byte ends whatever half a command another client left in the agent's parser.
        self._send(_DELIMITER + _line("guest-sync-delimited", {"id": number}))
        left = _STALE_BYTES
        for _ in range(_STALE_LINES):
            left -= self._skip_to_delimiter(left)
            if self._answer(ANSWER_BYTES) == {"return": number}:
                return
        raise self._confused("it never answered what it was asked")

    def command(
        self, name: str, arguments: Mapping[str, object] | None = None, *, limit_bytes: int = ANSWER_BYTES
    ) -> Any:
        """What the agent returns. Raises `AgentRefused` with its words, `GuestUnreachable`."""
        self._send(_line(name, arguments or {}))
        answer = self._answer(limit_bytes)
        if isinstance(answer, dict) and "return" in answer:
            return answer["return"]
        error = answer.get("error") if isinstance(answer, dict) else None
        if not isinstance(error, dict):
            raise self._confused("its answer is neither a result nor an error")
        raise AgentRefused(f"the agent of {self._name} refused {name}: {_shown(error.get('desc'))}")

    def left_s(self) -> float:
        """Seconds until the deadline."""
        return self._deadline - time.monotonic()

    def _confused(self, why: str) -> GuestUnreachable:
        return GuestUnreachable(f"the agent of {self._name} does not keep to its protocol: {why}")

    def _send(self, data: bytes) -> None:
        try:
            self._connection.settimeout(max(0.001, self.left_s()))
            self._connection.sendall(data)
        except TimeoutError:
            raise self._silent() from None
        except OSError as reason:
            raise GuestUnreachable(f"the line to the agent of {self._name} broke: {reason}") from reason

    def _silent(self) -> GuestUnreachable:
        return GuestUnreachable(
            f"no agent answers in {self._name}", hint="the guest must run qemu-ga; it starts some seconds after SSH"
        )

    def _more(self) -> None:
        left_s = self.left_s()  # asked once: time passes between two questions
        if left_s <= 0:
            raise self._silent()
        try:
            self._connection.settimeout(left_s)
            data = self._connection.recv(1 << 16)
        except TimeoutError:
            raise self._silent() from None
        except OSError as reason:
            raise GuestUnreachable(f"the line to the agent of {self._name} broke: {reason}") from reason
        if not data:
            raise GuestUnreachable(f"the line to the agent of {self._name} ended")
        self._rest += data

    def _skip_to_delimiter(self, limit_bytes: int) -> int:
        skipped = 0
        while _DELIMITER not in self._rest:
            skipped += len(self._rest)
            if skipped > limit_bytes:
                raise self._confused("it talks without end")
            self._rest = b""
            self._more()
        before, _, self._rest = self._rest.partition(_DELIMITER)
        return skipped + len(before)

    def _answer(self, limit_bytes: int) -> Any:
        parts, size = [self._rest], len(self._rest)
        while b"\n" not in parts[-1]:
            if size > limit_bytes:
                raise self._confused(f"an answer has more than {limit_bytes} bytes")
            self._rest = b""
            self._more()
            parts.append(self._rest)
            size += len(self._rest)
        line, _, self._rest = b"".join(parts).partition(b"\n")
        if len(line) > limit_bytes:
            raise self._confused(f"an answer has more than {limit_bytes} bytes")
        try:
            return json.loads(line.decode(errors="replace"))
        except (ValueError, RecursionError):
            raise self._confused(f"{_shown(line[:_SHOWN].decode(errors='replace'))} is no answer") from None


def _line(name: str, arguments: Mapping[str, object]) -> bytes:
    return json.dumps({"execute": name, "arguments": dict(arguments)}).encode() + b"\n"


def _shown(text: object) -> str:
    """The guest's words for a report: short, and nothing that a terminal obeys."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(text)[:_SHOWN])


@contextmanager
def talk(directory: Directory, *, timeout_s: float) -> Iterator[Agent]:
    """Speak with the agent; one at a time does. Raises `GuestUnreachable`, and what `require_up` raises."""
    power.require_up(directory)
    name = directory.read().spec.name
    deadline = time.monotonic() + timeout_s
    with _turn(directory, name, timeout_s):
        try:
            connection = files.connect(directory.here, SOCKET)
        except OSError as reason:
            raise GuestUnreachable(f"{name} has no line to an agent: {reason}") from reason
        with connection:
            agent = Agent(connection, name, deadline)
            agent.synchronise()
            yield agent


@contextmanager
def _turn(directory: Directory, name: str, timeout_s: float) -> Iterator[None]:
    # QEMU serves one client of the line at a time; another one would only wait and not know why.
    lock = os.open(directory.path / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        waiting.until(lambda: _locked(lock), what=f"a turn with the agent of {name}", timeout_s=timeout_s)
        yield
    except WaitedTooLong as reason:
        raise GuestUnreachable(f"somebody else speaks with the agent of {name}") from reason
    finally:
        os.close(lock)


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
