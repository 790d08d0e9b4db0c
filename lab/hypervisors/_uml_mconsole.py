"""The management console of User-Mode Linux: one request, one answer, over a Unix datagram socket.

Format: `struct mconsole_request` and `struct mconsole_reply` in Linux' arch/um/drivers/mconsole.h. Only the standard
library, because the warden imports it.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

_MAGIC = 0xCAFEBABE
_VERSION = 2
_MAX_DATA = 512
_REQUEST = struct.Struct("<III512s")
_REPLY = struct.Struct("<III")
MAX_ANSWER = 64 << 10
"""Of a longer answer the rest is thrown away, in bytes."""


@dataclass(frozen=True)
class Answer:
    """What the kernel said; `refused` when it could not do what was asked."""

    refused: bool
    text: str


def ask(path: str, command: str, *, timeout_s: float) -> Answer:
    """Send one command. Raises `OSError` (also `TimeoutError`), `ValueError` for a command that is too long."""
    data = command.encode()
    if len(data) >= _MAX_DATA:
        raise ValueError(f"a command of {len(data)} bytes does not fit into {_MAX_DATA - 1}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asking:
        asking.bind("")  # an abstract name of the kernel's choice, unix(7): the answer needs a way back
        asking.settimeout(timeout_s)
        asking.connect(path)
        asking.send(_REQUEST.pack(_MAGIC, _VERSION, len(data), data))
        return _answer(asking)


def _answer(asking: socket.socket) -> Answer:
    said = b""
    while True:
        reply = asking.recv(_REPLY.size + _MAX_DATA)
        refused, more, length = _REPLY.unpack_from(reply)
        if len(said) < MAX_ANSWER:
            said += reply[_REPLY.size :][:length].rstrip(b"\0")  # each part of a long answer ends with one
        if not more:
            return Answer(bool(refused), said.decode(errors="replace").strip())
