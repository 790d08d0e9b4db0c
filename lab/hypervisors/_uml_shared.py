"""A network card that shares a network: every frame of the guest goes to all other machines of that network.

A network is a folder; each machine on it has a Unix datagram socket there, and a packet socket on the tap device of
the card. There is no switch that could be left over: a machine that is gone leaves a name on which nobody listens, and
the next who sends there removes it. Only the standard library, because the warden imports it. Specifications:
packet(7), unix(7), Linux' include/uapi/linux/if_packet.h.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

from lab.hypervisors import _uml_network as network

LARGEST_FRAME = 10 + 14 + (64 << 10)
"""Bytes, with the header of virtio that says what the sender left to do: segments, checksums."""

_ALL_PROTOCOLS = 0x0003
_SOL_PACKET, _PACKET_VNET_HDR, _PACKET_IGNORE_OUTGOING = 263, 15, 23
_LOOK_AGAIN_S = 0.2  # for machines that came
_PATIENCE_S = 0.2  # with one that does not read; then the frame is lost, as on a wire
_LOST = (errno.EAGAIN, errno.ENOBUFS, errno.EMSGSIZE, errno.ENETDOWN, errno.EINVAL)


class SharedCard:
    """The wire between one tap device and the other machines, for as long as it is not closed."""

    def __init__(self, tap: str, folder: int, member: str) -> None:
        """`folder` is a descriptor of the network's folder, which from now on is ours. Raises `OSError`."""
        self._folder, self._member = folder, member
        network.keep_silent(tap)
        self._wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_PROTOCOLS))
        self._mailbox = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            # Guests leave checksums and segments to their cards; the header carries that to the other card.
            self._wire.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
            self._wire.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
            self._wire.bind((tap, _ALL_PROTOCOLS))
            self._sender.settimeout(_PATIENCE_S)
            with suppress(FileNotFoundError):
                Path(self._place(member)).unlink()
            self._mailbox.bind(self._place(member))
        except OSError:
            self.close()
            raise
        self._others: tuple[str, ...] = ()
        self._looked = 0.0

    def start(self) -> None:
        for work in (self._send_all, self._receive_all):
            threading.Thread(target=work, name=f"shared-{self._member}", daemon=True).start()

    def close(self) -> None:
        """Leave the network. Safe to call twice."""
        for end in (self._wire, self._mailbox):
            # Closing alone does not wake a thread that waits in recv().
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        with suppress(OSError):
            Path(self._place(self._member)).unlink()
        for end in (self._wire, self._mailbox, self._sender):
            end.close()
        folder, self._folder = self._folder, -1
        if folder >= 0:
            os.close(folder)

    def _place(self, member: str) -> str:
        # The folder is not in the sandbox, and its path may be longer than the 107 bytes of a socket's name.
        return f"/proc/self/fd/{self._folder}/{member}"

    def _send_all(self) -> None:
        with suppress(OSError, ValueError):  # the card is closed
            while True:
                try:
                    frame = self._wire.recv(LARGEST_FRAME)
                except OSError as reason:
                    if reason.errno != errno.ENETDOWN:
                        raise
                    continue
                for other in self._present():
                    self._send(other, frame)

    def _send(self, other: str, frame: bytes) -> None:
        try:
            self._sender.sendto(frame, self._place(other))
        except ConnectionRefusedError:
            with suppress(OSError):
                Path(self._place(other)).unlink()
        except FileNotFoundError:
            self._looked = 0.0
        except TimeoutError:
            return
        except OSError as reason:
            if reason.errno not in _LOST:
                raise

    def _present(self) -> tuple[str, ...]:
        now = time.monotonic()
        if now - self._looked > _LOOK_AGAIN_S:
            self._looked = now
            here = Path(f"/proc/self/fd/{self._folder}")
            self._others = tuple(path.name for path in here.iterdir() if path.name != self._member)
        return self._others

    def _receive_all(self) -> None:
        with suppress(ValueError):
            while frame := self._mailbox.recv(LARGEST_FRAME):
                try:
                    self._wire.send(frame)
                except OSError as reason:
                    if reason.errno not in _LOST:
                        return
