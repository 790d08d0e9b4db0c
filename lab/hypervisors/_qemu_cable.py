"""A cable: a small process between one network card of a QEMU machine and the others on the same shared network.

It is started as a file, `python -I -S`, and imports nothing but the standard library. On one side it has QEMU's
stream of frames (each behind its length in 4 bytes, big-endian: net/net.c, `net_socket_rs_init`), on the other a
datagram socket in the network's folder, which only this user can enter. It ends with QEMU, so a network exists as
long as a machine is on it, and no process is there for the network itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import selectors
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

LONGEST_FRAME = 1 << 17
_HURRY_S = 0.05  # how long a frame waits for a machine that takes none; then it is lost, as in any switch
_MULTICAST = 0x01


class Cable:
    """Both ends, and which neighbour was seen with which address."""

    def __init__(self, card: socket.socket, network: socket.socket, name: str) -> None:
        self._card, self._network, self._name = card, network, name
        self._rest = b""
        self._seen: dict[bytes, str] = {}

    def from_card(self) -> bool:
        """Pass on what QEMU sent; false when QEMU is gone."""
        try:
            data = self._card.recv(1 << 16)
        except OSError:
            return False
        if not data:
            return False
        self._rest += data
        while len(self._rest) >= 4:
            length = int(struct.unpack(">I", self._rest[:4])[0])
            if length > LONGEST_FRAME:
                return False  # not a stream of frames
            if len(self._rest) < 4 + length:
                break
            frame, self._rest = self._rest[4 : 4 + length], self._rest[4 + length :]
            self._send(frame)
        return True

    def _send(self, frame: bytes) -> None:
        target = frame[:6]
        known = self._seen.get(target) if target and not target[0] & _MULTICAST else None
        if known is not None and self._to(known, frame):
            return
        self._seen.pop(target, None)
        for neighbour in os.listdir("."):  # noqa: PTH208 (the folder of the network, by its open end)
            if neighbour != self._name:
                self._to(neighbour, frame)

    def _to(self, neighbour: str, frame: bytes) -> bool:
        try:
            self._network.sendto(frame, neighbour)
        except (ConnectionRefusedError, FileNotFoundError):
            # Its process was killed and could not tidy up.
            Path(neighbour).unlink(missing_ok=True)
            return False
        except OSError:  # it is busy: this frame is lost
            return True
        return True

    def from_network(self) -> bool:
        """Pass on what a neighbour sent; false when QEMU is gone."""
        frame, neighbour = self._network.recvfrom(LONGEST_FRAME)
        if len(frame) >= 12 and isinstance(neighbour, str) and not frame[6] & _MULTICAST:
            self._seen[frame[6:12]] = neighbour
        try:
            self._card.sendall(struct.pack(">I", len(frame)) + frame)
        except OSError:
            return False
        return True


def lay(folder: Path, name: str, card: socket.socket) -> None:
    """Join the network of that folder; returns when QEMU is gone."""
    os.chdir(folder)  # names stay short: an address of a UNIX socket has 107 bytes
    Path(name).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as network, selectors.DefaultSelector() as selector:
        network.bind(name)
        network.settimeout(_HURRY_S)
        cable = Cable(card, network, name)
        selector.register(card, selectors.EVENT_READ, cable.from_card)
        selector.register(network, selectors.EVENT_READ, cable.from_network)
        os.write(1, b"joined\n")
        _let_go()
        try:
            while all(key.data() for key, _ in selector.select()):
                continue
        finally:
            Path(name).unlink(missing_ok=True)
            with contextlib.suppress(OSError), alone(folder):  # others are still there
                folder.rmdir()


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """While nobody else joins a network, or takes the folder of one away behind the last who left.

    Raises `OSError`.
    """
    above = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(above, fcntl.LOCK_EX)
        yield
    finally:
        os.close(above)


def _let_go() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)


def main() -> None:
    """Read the job from standard input, leave the controller's process tree, lay the cable."""
    job = json.load(sys.stdin)
    if os.fork():
        os._exit(0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with socket.socket(fileno=job["card"]) as card:
        lay(Path(job["folder"]), job["name"], card)


if __name__ == "__main__":
    main()
