"""What the QEMU guest agent does for us, whatever line carries its commands: programs, files, addresses, rest.

Of what the guest says nothing is believed: shapes are checked, sizes bounded. The commands are those of QEMU's
docs/interop/qemu-ga-ref. Below every driver whose guests have that agent, because no driver imports another.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, Protocol

from lab.errors import GuestCommandFailed, GuestError, GuestUnreachable, HypervisorRefused, NotSupported

ANSWER_BYTES = 1 << 20  # of a command that does not say how much it wants
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_MOST_CARDS, _MOST_ADDRESSES = 256, 64
_REFUSES = re.compile(r"not (currently )?supported|disabled")
_NO_PROGRAM = re.compile(r"Failed to execute child process|No such file or directory|Permission denied")


class AgentRefused(GuestError):
    """The agent answered with an error; the words are the guest's."""


class Ask(Protocol):
    """Sends the agent a command and gives what it returns. Raises `AgentRefused`, `GuestUnreachable`."""

    def __call__(
        self, name: str, arguments: Mapping[str, object] | None = None, *, limit_bytes: int = ANSWER_BYTES
    ) -> Any: ...


def begin(ask: Ask, argv: Sequence[str], stdin: bytes) -> int:
    """The process id of a program that was started and whose output is kept. Raises `AgentRefused`."""
    order: dict[str, object] = {"path": argv[0], "arg": list(argv[1:]), "capture-output": True}
    if stdin:
        order["input-data"] = base64.b64encode(stdin).decode()
    return _number(ask("guest-exec", order), "pid")


def is_no_program(reason: AgentRefused) -> bool:
    """Whether a program did not start because it is not there or is none."""
    return _NO_PROGRAM.search(reason.what) is not None


def ended(ask: Ask, pid: int, *, limit_bytes: int) -> Mapping[str, Any] | None:
    """What is told of a program that has ended; `None` while it runs."""
    told = ask("guest-exec-status", {"pid": pid}, limit_bytes=limit_bytes)
    if not isinstance(told, dict):
        raise _nonsense("the end of a program")
    return told if told.get("exited") is True else None


def status(told: Mapping[str, Any]) -> int:
    """As a shell tells it: 128 more than the signal that ended the program."""
    if "signal" in told:
        return 128 + _number(told, "signal")
    return _number(told, "exitcode")


def stream(told: Mapping[str, Any], name: str, bound: int) -> tuple[bytes, bool]:
    """At most `bound` bytes of the output "out" or "err" of a program, and whether there was more."""
    whole = _decoded(told.get(f"{name}-data", ""))
    cut = told.get(f"{name}-truncated") is True
    return whole[:bound], cut or len(whole) > bound


def read(ask: Ask, path: PurePath, limit_bytes: int, *, chunk_bytes: int) -> bytes:
    """Raises `GuestCommandFailed` when it cannot be read or is larger than the limit, `GuestUnreachable`."""
    content = bytearray()
    handle = _opened(ask, path, "r")
    try:
        while True:
            order = {"handle": handle, "count": chunk_bytes}
            told = ask("guest-file-read", order, limit_bytes=2 * chunk_bytes)
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
        ask("guest-file-close", {"handle": handle})


def write(ask: Ask, path: PurePath, data: bytes, *, chunk_bytes: int) -> None:
    """Raises `GuestCommandFailed` when it cannot be written, `GuestUnreachable`."""
    handle = _opened(ask, path, "w")
    try:
        for start in range(0, len(data), chunk_bytes):
            part = data[start : start + chunk_bytes]
            order = {"handle": handle, "buf-b64": base64.b64encode(part).decode()}
            if _number(ask("guest-file-write", order), "count") != len(part):
                raise GuestCommandFailed(f"{str(path)!r} was not written whole")
        ask("guest-file-flush", {"handle": handle})
    except AgentRefused as reason:
        raise GuestCommandFailed(f"{str(path)!r} cannot be written: {reason.what}") from reason
    finally:
        ask("guest-file-close", {"handle": handle})


def _opened(ask: Ask, path: PurePath, mode: str) -> int:
    try:
        handle = ask("guest-file-open", {"path": str(path), "mode": mode})
    except AgentRefused as reason:
        raise GuestCommandFailed(f"{str(path)!r} cannot be opened: {reason.what}") from reason
    if type(handle) is not int:
        raise _nonsense("the handle of a file")
    return handle


def addresses(ask: Ask) -> Mapping[str, Sequence[str]]:
    """IP addresses by MAC address, without the loopback card; what is neither is left out."""
    cards = ask("guest-network-get-interfaces")
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


def freeze(ask: Ask) -> int:
    """How many file systems came to rest. Raises `HypervisorRefused`, `NotSupported`, `GuestUnreachable`."""
    return _rest(ask, "guest-fsfreeze-freeze")


def thaw(ask: Ask) -> int:
    """How many go on; none when none was at rest."""
    return _rest(ask, "guest-fsfreeze-thaw")


def _rest(ask: Ask, command: str) -> int:
    try:
        count = ask(command)
    except AgentRefused as reason:
        # While all is at rest the agent disables what would write, the command itself too.
        if "frozen" not in reason.what and _REFUSES.search(reason.what):
            raise NotSupported(reason.what) from reason
        raise HypervisorRefused(reason.what) from reason
    if type(count) is not int:
        raise _nonsense("a number of file systems")
    return count


def not_json() -> GuestUnreachable:
    """What to raise for an answer that is none."""
    return _nonsense("an answer in JSON")


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
