"""Ports of 127.0.0.1 whose connections go through the dom0 to a guest behind it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from lab import log
from lab.contracts import Endpoint
from lab.errors import LabError
from lab.ssh._tunnel import Tunnel

Open = Callable[[Endpoint], Tunnel]
_log = log.get(__name__)

_CHUNK = 1 << 16
# A guest that refuses does so at once; one that is not there is given up by the dom0 after seconds without an answer.
_REFUSED_S = 1.0
_SILENT_S = 60.0


class Relay:
    """One listening port. A thread waits for connections, two carry each of them; all end with `close`."""

    def __init__(self, far: Endpoint, open_tunnel: Open) -> None:
        self._far, self._open = far, open_tunnel
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open_sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._serve, name="xen-relay", daemon=True).start()

    @property
    def endpoint(self) -> Endpoint:
        """Where to connect."""
        return Endpoint("127.0.0.1", int(self._listener.getsockname()[1]))

    def lead_through(self, open_tunnel: Open) -> None:
        """Take another way from now on; what is open goes on or ends as its own does."""
        self._open = open_tunnel

    def close(self) -> None:
        """Stop listening and end what is open. Safe to call twice."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in accept
        self._listener.close()
        with self._lock:
            left = tuple(self._open_sockets)
        for sock in left:
            _hang_up(sock)

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._open_sockets.add(sock)
            threading.Thread(target=self._carry, args=(sock,), name="xen-relay", daemon=True).start()

    def _carry(self, sock: socket.socket) -> None:
        try:
            # The guest's own answers are small: waiting for more to send with them costs 40 ms each.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            tunnel = self._tunnel_for(sock)
            if tunnel is not None:
                _both_ways(sock, tunnel)
        except OSError as reason:
            _log.debug("relay.ended", far=self._far, reason=reason)
        finally:
            with self._lock:
                self._open_sockets.discard(sock)
            sock.close()

    def _tunnel_for(self, sock: socket.socket) -> Tunnel | None:
        """`None` when the guest did not take the connection, after the caller was shown what that means."""
        began = time.monotonic()
        try:
            return self._open(self._far)
        except (LabError, ConnectionError) as reason:
            _log.debug("relay.refused", far=self._far, reason=reason)
        if time.monotonic() - began > _REFUSED_S:
            # Nobody answered there. Hanging up would say that the guest's network works and nothing listens.
            sock.settimeout(_SILENT_S)
            with suppress(OSError):
                while sock.recv(_CHUNK):
                    pass
        return None


def _both_ways(sock: socket.socket, tunnel: Tunnel) -> None:
    back = threading.Thread(target=_back, args=(sock, tunnel), name="xen-relay", daemon=True)
    back.start()
    try:
        while data := sock.recv(_CHUNK):
            tunnel.send(data)
        tunnel.end_input()
        back.join()
    finally:
        tunnel.close()
        _hang_up(sock)
        back.join()


def _back(sock: socket.socket, tunnel: Tunnel) -> None:
    with suppress(OSError):
        while data := tunnel.receive():
            sock.sendall(data)
    _hang_up(sock)


def _hang_up(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
