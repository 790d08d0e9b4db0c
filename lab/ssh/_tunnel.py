"""A TCP connection that goes through an SSH connection and begins at its other end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.ssh._pump import Pulse

if TYPE_CHECKING:
    import paramiko

_CHUNK = 1 << 16


class Tunnel:
    """Bytes both ways; one thread may read while another writes."""

    def __init__(self, channel: paramiko.Channel, pulse: Pulse) -> None:
        self._channel, self._pulse = channel, pulse

    def receive(self, timeout_s: float | None = None) -> bytes:
        """Wait for bytes; nothing means that the far end sends no more. Raises `TimeoutError`, `OSError`."""
        self._channel.settimeout(timeout_s)
        data = self._channel.recv(_CHUNK)
        if data:
            self._pulse.heard()
        return data

    def send(self, data: bytes) -> None:
        """Raises `OSError` when the far end is gone."""
        self._channel.sendall(data)

    def end_input(self) -> None:
        """Tell the far end that no more comes. Raises `OSError`."""
        self._channel.shutdown_write()

    def close(self) -> None:
        self._channel.close()
