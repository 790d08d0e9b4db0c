"""What the driver asks a running machine's warden for: the management console, ports, neighbours."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab import waiting
from lab.errors import HypervisorRefused, WaitedTooLong
from lab.hypervisors import _machine_directory as files
from lab.hypervisors import _uml_warden as warden

_PATIENCE_S = 30.0
_MAX_ANSWER = 1 << 20
_MAX_TYPED = 1024  # bytes at once: a request has room for 4096


def listener() -> socket.socket:
    """A listening socket on a free port of this machine, to be handed to a warden."""
    return socket.create_server(("127.0.0.1", 0), backlog=64)


def mconsole(directory: Path, command: str, *, timeout_s: float = 10.0) -> str:
    """Ask the kernel's management console. Raises `HypervisorRefused` with what it says."""
    answer = _ask(directory, {"do": "mconsole", "command": command, "timeout_s": timeout_s})
    if answer["refused"]:
        raise HypervisorRefused(f"User-Mode Linux refuses {command!r}: {str(answer['text'])[:500]}")
    return str(answer["text"])


def kernel_runs(directory: Path) -> bool:
    """Whether the kernel got as far as its management console."""
    return bool(_ask(directory, {"do": "kernel-runs"})["runs"])


def forward(directory: Path, guest_port: int) -> int:
    """The port of 127.0.0.1 that leads to that port of the guest; made when it is not there yet."""
    known = {int(guest): int(here) for guest, here in _ask(directory, {"do": "forwards"}).items()}
    if guest_port not in known:
        with listener() as handed:
            known[guest_port] = handed.getsockname()[1]
            _ask(directory, {"do": "forward", "port": guest_port}, handed.fileno())
    return known[guest_port]


def withhold_restart(directory: Path, *, yes: bool) -> None:
    """Whether the machine stays off when the guest reboots next."""
    _ask(directory, {"do": "withhold-restart", "yes": yes})


def type_on_console(directory: Path, data: bytes) -> None:
    """Bytes as if typed at the terminal. Raises `HypervisorRefused` when the guest does not take them."""
    while data:
        part = data[:_MAX_TYPED]
        data = data[_ask(directory, {"do": "type", "hex": part.hex()})["typed"] :]


def share(directory: Path, tap: int, folder: Path, member: str) -> None:
    """Connect a tap device with all others whose machines share the network of that folder."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        _ask(directory, {"do": "share", "tap": tap, "member": member}, descriptor)
    finally:
        os.close(descriptor)


def unshare(directory: Path, tap: int) -> None:
    """Take a tap device off its network. Safe to call twice."""
    _ask(directory, {"do": "unshare", "tap": tap})


def neighbours(directory: Path) -> tuple[str, ...]:
    """The addresses that answered in the machine's network."""
    return tuple(str(address) for address in _ask(directory, {"do": "neighbours"})["addresses"])


def _ask(directory: Path, request: Mapping[str, object], handed: int | None = None) -> Any:
    """Raises `HypervisorRefused` when the warden or the kernel behind it does not answer."""

    def connected() -> socket.socket | None:
        try:
            return files.connect(directory, warden.CONTROL_SOCKET)
        except BlockingIOError:
            return None  # its queue is full: others ask too

    try:
        with waiting.until(connected, what="the machine's warden to listen", timeout_s=_PATIENCE_S) as asking:
            asking.settimeout(_PATIENCE_S)
            descriptors = [] if handed is None else [handed]
            socket.send_fds(asking, [json.dumps(request).encode()], descriptors)
            answer = json.loads(_line(asking))
    except (OSError, ValueError, WaitedTooLong) as reason:
        raise HypervisorRefused(f"the machine {directory.name} does not answer {request['do']!r}: {reason}") from reason
    if "error" in answer:
        raise HypervisorRefused(f"the machine {directory.name} does not answer {request}: {answer['error']}")
    return answer


def _line(asking: socket.socket) -> bytes:
    said = b""
    while not said.endswith(b"\n") and len(said) < _MAX_ANSWER:
        data = asking.recv(64 << 10)
        if not data:
            break
        said += data
    return said
