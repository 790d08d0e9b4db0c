"""Relay: TCP connections from a listener in the host's network to a port of the guest, and back.

The listener was made in the host's network namespace and handed over; the connection to the guest is made in
the machine's namespace. Only the standard library and `lab.waiting`, because the warden imports it.
"""

from __future__ import annotations

import errno
import socket
import struct
import threading
from contextlib import suppress

from lab import waiting
from lab.errors import WaitedTooLong

_CHUNK = 64 << 10
"""The most that one direction of one connection holds, in bytes: a side that does not read stops the other."""

CONNECTIONS = 64
"""More at once than this wait in the listener's queue."""

_PAUSE_S = 0.2
_PATIENCE_S = 3600.0  # of a client in front of a guest that is not on the network
_LINGER_NOT = struct.pack("ii", 1, 0)  # close() sends a reset, socket(7)
_NOT_THERE_YET = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ETIMEDOUT, errno.EHOSTDOWN)
_TCP_ESTABLISHED = 1


class Relay:
    """Accepts on one listener for as long as the process lives."""

    def __init__(self, listener: socket.socket, guest: str, port: int) -> None:
        self._listener = listener
        self._guest = (guest, port)
        self._slots = threading.BoundedSemaphore(CONNECTIONS)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listener.getsockname()[1])

    def start(self) -> None:
        threading.Thread(target=self._accept, name=f"relay-{self._guest[1]}", daemon=True).start()

    def _accept(self) -> None:
        while True:
            self._slots.acquire()
            try:
                client, _ = self._listener.accept()
            except OSError as reason:
                self._slots.release()
                if reason.errno in (errno.EBADF, errno.EINVAL):
                    return  # the listener is closed
                waiting.pause(_PAUSE_S)  # out of descriptors or memory: others end, then this goes on
                continue
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            guest = self._connect(client)
            if guest is None:
                reset(client)
                return
            with guest:
                there = threading.Thread(target=pump, args=(client, guest), daemon=True)
                there.start()
                pump(guest, client)
                there.join()
        finally:
            client.close()
            self._slots.release()

    def _connect(self, client: socket.socket) -> socket.socket | None:
        """A connection to the guest, or `None` when it refuses or the client went away.

        A guest that is not on the network yet is silence, not refusal: the client waits as it would in front
        of a real machine that is switched off.
        """

        def attempt() -> socket.socket | None:
            guest = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            try:
                guest.connect(self._guest)
            except OSError as reason:
                guest.close()
                if reason.errno in _NOT_THERE_YET and _is_there(client):
                    return None
                raise
            return guest

        try:
            guest = waiting.until(attempt, what="the guest to answer", timeout_s=_PATIENCE_S, longest_pause_s=_PAUSE_S)
        except (OSError, WaitedTooLong):
            return None
        for side in (guest, client):
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return guest


def pump(source: socket.socket, sink: socket.socket) -> None:
    """Copy until the end of `source`, then end the sending half of `sink`; an error resets both at their close."""
    try:
        while data := source.recv(_CHUNK):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        # One side is gone, the other must learn of it as an error, not as an orderly end. Shutting down the
        # receiving half wakes the opposite direction and sends nothing; the close that follows sends the reset.
        for side in (source, sink):
            with suppress(OSError):
                side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
                side.shutdown(socket.SHUT_RD)


def reset(client: socket.socket) -> None:
    """Close with a reset instead of an orderly end, so that the client sees a refusal at once."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    client.close()


def _is_there(client: socket.socket) -> bool:
    # First byte of struct tcp_info is the connection's state, tcp(7).
    return client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_ESTABLISHED
