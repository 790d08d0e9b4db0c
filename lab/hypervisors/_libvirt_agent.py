"""What the agent in the guest of a libvirt machine does for us: programs, files, addresses, file systems at rest.

Libvirt holds the agent's line and carries one answer of at most 4 MiB (REMOTE_STRING_MAX), so a program's output is
bounded in the guest already. Of what the guest says nothing is believed: shapes are checked, sizes bounded.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
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
from lab.hypervisors import _libvirt_power as power
from lab.hypervisors import _libvirt_sdk
from lab.hypervisors._libvirt_link import Kind, LibvirtRefused
from lab.hypervisors._libvirt_power import Machine

ANSWER_S = 20
_FILE_S = 300
_BOUND = 1 << 20  # of a program's output stream
# What does not fit into the line's socket at once (net.core.wmem_default, 208 KiB) libvirt 9.0 never writes to its end,
# and no agent of that machine answers any more: seen with 192 KiB in base64.
_LARGEST_ORDER = 160 << 10
_CHUNK = 64 << 10
_MOST_CARDS, _MOST_ADDRESSES = 256, 64
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_REFUSES = re.compile(r"not (currently )?supported|disabled")
_NO_PROGRAM = re.compile(r"Failed to execute child process|No such file or directory")
_SILENT = (Kind.AGENT_SILENT, Kind.TIMED_OUT)
# Both streams through a bound that goes on reading, so that the program does not notice; its status comes last.
_BOUNDED = """
exec 6>&1 7>&2
bound() { head -c "$n"; cat >/dev/null; }
n=$1; shift
s=$({ { { "$@" 3>&- 5>&- 6>&- 7>&-; echo $? >&3; } 2>&1 >&5 | bound >&7; } 5>&1 | bound >&6; } 3>&1)
exit "$s"
"""
_KILL = """
end() { for c in $(cat /proc/$1/task/*/children 2>/dev/null); do end $c; done; kill -KILL $1 2>/dev/null; }
end "$1"
"""


def answers(machine: Machine) -> bool:
    """Whether an agent answers now; waits a little for it."""
    try:
        _command(machine, "guest-ping", timeout_s=ANSWER_S // 4)
    except (GuestUnreachable, HypervisorRefused):
        return False
    return True


def run(machine: Machine, argv: Sequence[str], stdin: bytes, timeout_s: float) -> CommandResult:
    """Raises `GuestUnreachable`, `CommandTimedOut`; a program that is not there ends with 127, as in a shell."""
    started = time.monotonic()
    try:
        pid = _begun(machine, ("/bin/sh", "-c", _BOUNDED, "sh", str(_BOUND + 1), *argv), stdin)
    except LibvirtRefused as reason:
        if not _NO_PROGRAM.search(reason.words):
            raise
        try:
            pid = _begun(machine, argv, stdin)  # a guest without a shell; its output is not bounded there
        except LibvirtRefused as again:
            if not _NO_PROGRAM.search(again.words):
                raise
            return CommandResult(tuple(argv), 127, b"", again.words.encode(), time.monotonic() - started)
    left_s = max(0.0, timeout_s - (time.monotonic() - started))
    try:
        told = waiting.until(lambda: _ended(machine, pid), what=argv[0], timeout_s=left_s)
    except WaitedTooLong:
        _begun(machine, ("/bin/sh", "-c", _KILL, "sh", str(pid)), b"")
        raise CommandTimedOut(f"{argv[0]!r} did not end within {timeout_s:.0f} s") from None
    out, err = _decoded(told.get("out-data", "")), _decoded(told.get("err-data", ""))
    status = 128 + _number(told, "signal") if "signal" in told else _number(told, "exitcode")
    cut = len(out) > _BOUND or len(err) > _BOUND
    return CommandResult(tuple(argv), status, out[:_BOUND], err[:_BOUND], time.monotonic() - started, cut)


def _begun(machine: Machine, argv: Sequence[str], stdin: bytes) -> int:
    order: dict[str, object] = {"path": argv[0], "arg": list(argv[1:]), "capture-output": True}
    if stdin:
        order["input-data"] = base64.b64encode(stdin).decode()
    return _number(_command(machine, "guest-exec", order), "pid")


def _ended(machine: Machine, pid: int) -> Mapping[str, Any] | None:
    told = _command(machine, "guest-exec-status", {"pid": pid})
    if not isinstance(told, dict):
        raise _nonsense("the end of a program")
    return told if told.get("exited") is True else None


def read(machine: Machine, path: PurePath, limit_bytes: int) -> bytes:
    """Raises `GuestCommandFailed` when it cannot be read or is larger than the limit, `GuestUnreachable`."""
    content = bytearray()
    handle = _opened(machine, path, "r")
    try:
        while True:
            told = _command(machine, "guest-file-read", {"handle": handle, "count": _CHUNK}, timeout_s=_FILE_S)
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
    except LibvirtRefused as reason:
        raise GuestCommandFailed(f"{str(path)!r} cannot be read: {reason.words}") from reason
    finally:
        _command(machine, "guest-file-close", {"handle": handle})


def write(machine: Machine, path: PurePath, data: bytes) -> None:
    """Raises `GuestCommandFailed` when it cannot be written, `GuestUnreachable`."""
    handle = _opened(machine, path, "w")
    try:
        for start in range(0, len(data), _CHUNK):
            part = data[start : start + _CHUNK]
            order = {"handle": handle, "buf-b64": base64.b64encode(part).decode()}
            if _number(_command(machine, "guest-file-write", order, timeout_s=_FILE_S), "count") != len(part):
                raise GuestCommandFailed(f"{str(path)!r} was not written whole")
    except LibvirtRefused as reason:
        raise GuestCommandFailed(f"{str(path)!r} cannot be written: {reason.words}") from reason
    finally:
        _command(machine, "guest-file-close", {"handle": handle})


def _opened(machine: Machine, path: PurePath, mode: str) -> int:
    try:
        handle = _command(machine, "guest-file-open", {"path": str(path), "mode": mode})
    except LibvirtRefused as reason:
        raise GuestCommandFailed(f"{str(path)!r} cannot be opened: {reason.words}") from reason
    if type(handle) is not int:
        raise _nonsense("the handle of a file")
    return handle


def addresses(machine: Machine) -> Mapping[str, Sequence[str]]:
    """IP addresses by MAC address, without the loopback card; what is neither is left out."""
    cards = _command(machine, "guest-network-get-interfaces")
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


def freeze(machine: Machine) -> int:
    """How many file systems came to rest. Raises `HypervisorRefused`, `NotSupported`, `GuestUnreachable`."""
    return _rest(machine, "guest-fsfreeze-freeze")


def thaw(machine: Machine) -> int:
    """How many go on; none when none was at rest."""
    return _rest(machine, "guest-fsfreeze-thaw")


def _rest(machine: Machine, command: str) -> int:
    try:
        count = _command(machine, command, timeout_s=_FILE_S)
    except LibvirtRefused as reason:
        # While all is at rest the agent disables what would write, the command itself too.
        if "frozen" not in reason.words and _REFUSES.search(reason.words):
            raise NotSupported(reason.words) from reason
        raise
    if type(count) is not int:
        raise _nonsense("a number of file systems")
    return count


def _command(
    machine: Machine, name: str, arguments: Mapping[str, object] | None = None, *, timeout_s: int = ANSWER_S
) -> Any:
    """What the agent returns. Raises `LibvirtRefused` with its words, `GuestUnreachable`."""
    qemu = _libvirt_sdk.load_qemu()
    line = json.dumps({"execute": name, **({"arguments": dict(arguments)} if arguments else {})})
    if len(line) > _LARGEST_ORDER:
        raise NotSupported(
            f"libvirt carries at most {_LARGEST_ORDER >> 10} KiB to an agent at once, not {len(line) >> 10}"
        )
    try:
        answer = power.on_running(
            machine,
            f"{name} of the agent",
            lambda domain: qemu.qemuAgentCommand(domain, line, timeout_s, 0),
            limit_s=timeout_s + 30.0,
            again=name == "guest-ping",
        )
    except LibvirtRefused as reason:
        if reason.kind in _SILENT or "agent is not connected" in reason.words:
            raise GuestUnreachable(
                f"no agent answers in {machine.name}",
                hint="the guest must run qemu-ga; it starts some seconds after SSH",
            ) from reason
        raise
    try:
        told = json.loads(answer)
    except (ValueError, RecursionError):
        raise _nonsense("JSON") from None
    if not isinstance(told, dict) or "return" not in told:
        raise _nonsense("an answer")
    return told["return"]


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
