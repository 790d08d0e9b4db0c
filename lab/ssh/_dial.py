"""Dialling: a TCP connection to a guest's SSH port, and what stands behind that port."""

from __future__ import annotations

import errno
import ipaddress
import select
import socket
import time
from enum import StrEnum

from lab.contracts import Endpoint

# RFC 4253, 4.2: the version line has at most 255 bytes; a few lines may come before it.
_LONGEST_GREETING = 8192
# paramiko asks for a packet's whole length at once, and Python reserves what is asked for.
_LARGEST_PIECE = 256 << 10
# What a peer may send before anybody takes data out of the connection. Our windows are 2 MiB a channel.
_UNREAD_BOUND = 8 << 20


class Answer(StrEnum):
    """What a guest's SSH port did."""

    BANNER = "banner"  # an SSH server greeted
    NOISE = "noise"  # something answered that is not an SSH server
    CLOSED = "closed"  # the guest's network works, nothing listens there: connection closed or reset at once
    SILENT = "silent"  # nothing came: no network in the guest, or the guest stands still
    UNREACHABLE = "unreachable"  # the forward on this machine is gone: the machine ended


class MeteredSocket(socket.socket):
    """A socket that ends when its peer sends far more than anybody asked for.

    paramiko believes any packet length up to 4 GiB, and buffers whatever comes for a channel that nobody
    reads; the reader calls `taken` whenever it took data out, which starts the count anew.
    Inherited, because paramiko wants a whole socket.
    """

    def __init__(self, plain: socket.socket) -> None:
        timeout = plain.gettimeout()
        super().__init__(fileno=plain.detach())
        self.settimeout(timeout)
        self._unread = 0

    def taken(self) -> None:
        """Data was taken out of the connection, so more may come."""
        self._unread = 0

    def recv(self, size: int, flags: int = 0) -> bytes:
        data = super().recv(min(size, _LARGEST_PIECE), flags)
        self._unread += 0 if flags else len(data)
        if self._unread > _UNREAD_BOUND:
            # With a number, because paramiko's thread dies of an OSError without one.
            raise ConnectionError(errno.EMSGSIZE, "the SSH server sends data that nobody asked for")
        return data


def dial(endpoint: Endpoint, deadline: float) -> MeteredSocket:
    """Connect; `deadline` is a time of `time.monotonic`. Raises `OSError`."""
    sock = MeteredSocket(socket.create_connection((endpoint.host, endpoint.port), timeout=_left(deadline)))
    # Without TCP_NODELAY every command waits for the peer's delayed acknowledgement, 40 ms.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # A peer that acknowledges nothing for a minute is gone (RFC 5482); milliseconds.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60_000)
    return sock


def await_greeting(sock: socket.socket, deadline: float) -> Answer:
    """Wait for the server's version line and leave it unread in the socket. Bounded in time and size."""
    watched = select.poll()
    watched.register(sock, select.POLLIN)
    seen = b""
    while True:
        if not watched.poll(_left(deadline) * 1000) or time.monotonic() > deadline:
            return Answer.NOISE if seen else Answer.SILENT
        try:
            # It stays in the socket, because the SSH library has to read it as well.
            peeked = sock.recv(_LONGEST_GREETING, socket.MSG_PEEK)
        except OSError:
            return Answer.CLOSED
        if any(line.startswith(b"SSH-") for line in peeked.split(b"\n")[:-1]):
            return Answer.BANNER
        if len(peeked) >= _LONGEST_GREETING:
            return Answer.NOISE
        if len(peeked) == len(seen):
            # The line is incomplete and poll returned at once: either the peer hung up, or more is to come.
            if _hung_up(sock):
                return Answer.NOISE if peeked else Answer.CLOSED
            _wait_for_more(sock, len(peeked), deadline)
        seen = peeked


def _hung_up(sock: socket.socket) -> bool:
    watched = select.poll()
    watched.register(sock, select.POLLRDHUP)
    return bool(watched.poll(0))


def _wait_for_more(sock: socket.socket, have: int, deadline: float) -> None:
    """Sleep until more than `have` bytes are there, the peer hangs up, or 50 ms passed."""
    # SO_RCVLOWAT keeps poll from returning for the bytes that were seen already (Linux, tcp(7)).
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, have + 1)
    watched = select.poll()
    watched.register(sock, select.POLLIN | select.POLLRDHUP)
    watched.poll(min(50.0, _left(deadline) * 1000))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)


def probe(endpoint: Endpoint, *, timeout_s: float) -> Answer:
    """Look at an SSH port without logging in; never raises, takes at most `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    try:
        sock = dial(endpoint, deadline)
    except ConnectionRefusedError:
        # A forward on this machine listens as long as its machine lives; a guest's own address refuses for itself.
        return Answer.UNREACHABLE if _is_forward(endpoint) else Answer.CLOSED
    except ConnectionResetError:
        return Answer.CLOSED
    except OSError:
        return Answer.SILENT
    with sock:
        return await_greeting(sock, deadline)


def _is_forward(endpoint: Endpoint) -> bool:
    try:
        return ipaddress.ip_address(endpoint.host).is_loopback
    except ValueError:
        return endpoint.host == "localhost"


def _left(deadline: float) -> float:
    return max(0.001, deadline - time.monotonic())
