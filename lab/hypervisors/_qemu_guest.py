"""What the agent in the guest of a QEMU machine does for us: programs, files, addresses, file systems at rest."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from lab import waiting
from lab.contracts import CommandResult
from lab.errors import (
    CommandTimedOut,
    GuestCommandFailed,
    GuestUnreachable,
    HypervisorRefused,
    NotSupported,
    WaitedTooLong,
)
from lab.hypervisors import _qemu_agent
from lab.hypervisors._qemu_agent import Agent, AgentRefused
from lab.hypervisors._qemu_store import Directory

ANSWER_S = 20.0  # a slow guest under load; the agent itself answers at once
FILE_S = 300.0
_OUTPUT_BOUND = 4 << 20  # of a stream, as over SSH
# qga/commands.c: GUEST_EXEC_MAX_OUTPUT, 16 MiB of each stream, and base64 makes 4 bytes of 3.
_EXEC_ANSWER_BYTES = 48 << 20
_CHUNK = 192 << 10
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_MOST_CARDS, _MOST_ADDRESSES = 256, 64
_REFUSES = re.compile(r"not (currently )?supported|disabled")
_NOT_FOUND = re.compile(r"Failed to execute child process|No such file or directory|Permission denied")


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
        order: dict[str, object] = {"path": argv[0], "arg": list(argv[1:]), "capture-output": True}
        if stdin:
            order["input-data"] = base64.b64encode(stdin).decode()
        try:
            pid = _number(agent.command("guest-exec", order), "pid")
        except AgentRefused as reason:
            if not _NOT_FOUND.search(reason.what):
                raise
            return CommandResult(tuple(argv), 127, b"", reason.what.encode(), time.monotonic() - started)
        left_s = max(0.0, timeout_s - (time.monotonic() - started))
        try:
            told = waiting.until(lambda: _ended(agent, pid), what=argv[0], timeout_s=left_s)
        except WaitedTooLong:
            agent.command("guest-exec", {"path": "kill", "arg": ["-KILL", str(pid)]})
            raise CommandTimedOut(f"{argv[0]!r} did not end within {timeout_s:.0f} s") from None
    out, cut_out = _stream(told, "out")
    err, cut_err = _stream(told, "err")
    return CommandResult(tuple(argv), _status(told), out, err, time.monotonic() - started, cut_out or cut_err)


def _ended(agent: Agent, pid: int) -> Mapping[str, Any] | None:
    told = agent.command("guest-exec-status", {"pid": pid}, limit_bytes=_EXEC_ANSWER_BYTES)
    if not isinstance(told, dict):
        raise _nonsense("the end of a program")
    return told if told.get("exited") is True else None


def _status(told: Mapping[str, Any]) -> int:
    if "signal" in told:
        return 128 + _number(told, "signal")
    return _number(told, "exitcode")


def _stream(told: Mapping[str, Any], name: str) -> tuple[bytes, bool]:
    whole = _decoded(told.get(f"{name}-data", ""))
    cut = told.get(f"{name}-truncated") is True
    return whole[:_OUTPUT_BOUND], cut or len(whole) > _OUTPUT_BOUND


def read(directory: Directory, path: PurePath, limit_bytes: int) -> bytes:
    """Raises `GuestCommandFailed` when it cannot be read or is larger than the limit, `GuestUnreachable`."""
    content = bytearray()
    with _qemu_agent.talk(directory, timeout_s=FILE_S) as agent:
        handle = _opened(agent, path, "r")
        try:
            while True:
                order = {"handle": handle, "count": _CHUNK}
                told = agent.command("guest-file-read", order, limit_bytes=2 * _CHUNK)
                if not isinstance(told, dict):
                    raise _nonsense("a piece of a file")
                part = _decoded(told.get("buf-b64", ""))
                content += part
                if len(content) > limit_bytes:
                    raise GuestCommandFailed(f"{str(path)!r} is larger than {limit_bytes} bytes")
                if told.get("eof") is True:
                    return bytes(content)
                if not part:
                    raise GuestCommandFailed(f"{str(path)!r} has no end")
        except AgentRefused as reason:
            raise GuestCommandFailed(f"{str(path)!r} cannot be read: {reason.what}") from reason
        finally:
            agent.command("guest-file-close", {"handle": handle})


def write(directory: Directory, path: PurePath, data: bytes) -> None:
    """Raises `GuestCommandFailed` when it cannot be written, `GuestUnreachable`."""
    with _qemu_agent.talk(directory, timeout_s=FILE_S) as agent:
        handle = _opened(agent, path, "w")
        try:
            for start in range(0, len(data), _CHUNK):
                part = data[start : start + _CHUNK]
                order = {"handle": handle, "buf-b64": base64.b64encode(part).decode()}
                if _number(agent.command("guest-file-write", order), "count") != len(part):
                    raise GuestCommandFailed(f"{str(path)!r} was not written whole")
            agent.command("guest-file-flush", {"handle": handle})
        except AgentRefused as reason:
            raise GuestCommandFailed(f"{str(path)!r} cannot be written: {reason.what}") from reason
        finally:
            agent.command("guest-file-close", {"handle": handle})


def _opened(agent: Agent, path: PurePath, mode: str) -> int:
    try:
        handle = agent.command("guest-file-open", {"path": str(path), "mode": mode})
    except AgentRefused as reason:
        raise GuestCommandFailed(f"{str(path)!r} cannot be opened: {reason.what}") from reason
    if type(handle) is not int:
        raise _nonsense("the handle of a file")
    return handle


def addresses(directory: Directory) -> Mapping[str, Sequence[str]]:
    """IP addresses by MAC address, without the loopback card; what is neither is left out."""
    with _qemu_agent.talk(directory, timeout_s=ANSWER_S) as agent:
        cards = agent.command("guest-network-get-interfaces")
    if not isinstance(cards, list):
        raise _nonsense("a list of network cards")
    found: dict[str, list[str]] = {}
    for card in cards[:_MOST_CARDS]:
        mac = str(card.get("hardware-address", "")).lower() if isinstance(card, dict) else ""
        if not _MAC.fullmatch(mac) or mac == "00:00:00:00:00:00":
            continue
        told = card.get("ip-addresses") or []
        if not isinstance(told, list):
            raise _nonsense("a list of addresses")
        known = found.setdefault(mac, [])
        known += [address for entry in told[:_MOST_ADDRESSES] if (address := _address(entry))]
    return found


def _address(entry: object) -> str:
    text = str(entry.get("ip-address", "")) if isinstance(entry, dict) else ""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""


def freeze(directory: Directory) -> int:
    """How many file systems came to rest. Raises `HypervisorRefused`, `NotSupported`, `GuestUnreachable`."""
    return _rest(directory, "guest-fsfreeze-freeze")


def thaw(directory: Directory) -> int:
    """How many go on; none when none was at rest."""
    return _rest(directory, "guest-fsfreeze-thaw")


def _rest(directory: Directory, command: str) -> int:
    with _qemu_agent.talk(directory, timeout_s=FILE_S) as agent:
        try:
            count = agent.command(command)
        except AgentRefused as reason:
            # While all is at rest the agent disables what would write, the command itself too.
            if "frozen" not in reason.what and _REFUSES.search(reason.what):
                raise NotSupported(reason.what) from reason
            raise HypervisorRefused(reason.what) from reason
    if type(count) is not int:
        raise _nonsense("a number of file systems")
    return count


def _number(told: object, key: str) -> int:
    value = told.get(key) if isinstance(told, dict) else None
    if type(value) is not int:
        raise _nonsense(f"a number called {key}")
    return value


def _decoded(text: object) -> bytes:
    try:
        return base64.b64decode(text if isinstance(text, str) else "?", validate=True)
    except (binascii.Error, ValueError):
        raise _nonsense("base64") from None


def _nonsense(wanted: str) -> GuestUnreachable:
    return GuestUnreachable(f"the agent does not keep to its protocol: it did not answer with {wanted}")
