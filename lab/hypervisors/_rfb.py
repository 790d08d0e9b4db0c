"""One picture of a display from its VNC server: as much of the Remote Framebuffer protocol 3.8 (RFC 6143) as it takes.

The guest chooses what is shown and how large, and whoever answers may be hostile: every length is checked before
anything of that length is read, all bytes together have a limit, and so has the time.
"""

from __future__ import annotations

import re
import struct
import time
from dataclasses import dataclass
from typing import Protocol

from lab.errors import HypervisorRefused

LARGEST_SIDE = 16384
LARGEST_PIXELS = 8 << 20
_LONGEST_TEXT = 1 << 16  # a desktop's name, a reason, what is on a clipboard
_OVERHEAD = 1 << 20  # of bytes that are no pixels
_PICTURES = 3  # how often a server may send the whole display until nothing of it lacks

_VERSION = b"RFB 003.008\n"
_NO_PASSWORD = 1  # the security type None
_RAW = 0
# 32 bits a pixel of which 24 count, little endian, true colour, eight bits each of red, green and blue in that order.
_SET_FORMAT = struct.pack(">B3x BBBB HHH BBB 3x", 0, 32, 24, 0, 1, 255, 255, 255, 0, 8, 16)
_SET_ENCODINGS = struct.pack(">Bx H i", 2, 1, _RAW)


class Stream(Protocol):
    """A connection to the server."""

    def receive(self, timeout_s: float | None = None) -> bytes:
        """Some bytes; nothing when no more will come. Raises `TimeoutError`, `OSError`."""

    def send(self, data: bytes) -> None:
        """Raises `OSError`."""


@dataclass(frozen=True)
class Picture:
    """Three bytes a pixel (red, green, blue), line by line, the upper left first."""

    width: int
    height: int
    pixels: bytes


def picture(stream: Stream, *, timeout_s: float) -> Picture:
    """What the display shows now. Raises `HypervisorRefused` for what is no VNC server that shows it to everybody."""
    try:
        return _Session(stream, time.monotonic() + timeout_s).picture()
    except TimeoutError:
        raise HypervisorRefused(f"the VNC server did not show its display within {timeout_s:.0f} s") from None
    except OSError as reason:
        raise HypervisorRefused(f"the connection to the VNC server broke: {reason!s:.200}") from reason


class _Session:
    def __init__(self, stream: Stream, deadline: float) -> None:
        self._stream, self._deadline = stream, deadline
        self._waiting = bytearray()
        self._allowed = _OVERHEAD
        self._width = self._height = 0
        self._frame, self._seen = bytearray(), bytearray()
        self._complete = False

    def picture(self) -> Picture:
        self._greet()
        self._stream.send(_SET_FORMAT + _SET_ENCODINGS)
        self._ask()
        while not self._complete:
            self._message()
        colours = bytearray(3 * self._width * self._height)
        for channel in range(3):
            colours[channel::3] = self._frame[channel::4]
        return Picture(self._width, self._height, bytes(colours))

    def _greet(self) -> None:
        version = self._take(12)
        match = re.fullmatch(rb"RFB 003\.(\d{3})\n", version)
        if match is None or int(match[1]) < 8:
            raise HypervisorRefused(f"no VNC server of protocol 3.8 answers: {version!r}")
        self._stream.send(_VERSION)
        (count,) = self._numbers(">B")
        if count == 0:
            raise HypervisorRefused(f"the VNC server refuses: {self._text()}")
        if _NO_PASSWORD not in self._take(count):
            raise HypervisorRefused("the VNC server wants a password")
        self._stream.send(bytes((_NO_PASSWORD,)))
        if self._numbers(">I") != (0,):
            raise HypervisorRefused(f"the VNC server lets nobody in: {self._text()}")
        self._stream.send(b"\1")  # others may look on
        width, height, _ = self._numbers(">HH16s")
        self._text()  # the desktop's name
        if not (0 < width <= LARGEST_SIDE and 0 < height <= LARGEST_SIDE and width * height <= LARGEST_PIXELS):
            raise HypervisorRefused(f"a display of {width} x {height} is not taken")
        self._width, self._height = width, height
        self._frame, self._seen = bytearray(4 * width * height), bytearray(width * height)
        self._allowed += _PICTURES * len(self._frame)

    def _ask(self) -> None:
        self._stream.send(struct.pack(">BBHHHH", 3, 0, 0, 0, self._width, self._height))

    def _message(self) -> None:
        (kind,) = self._numbers(">B")
        if kind == 0:
            (rectangles,) = self._numbers(">xH")
            for _ in range(rectangles):
                self._rectangle()
            self._complete = 0 not in self._seen
            if not self._complete:
                self._ask()
        elif kind == 1:  # colours of a palette, which nobody asked for
            _, count = self._numbers(">xHH")
            self._take(6 * count)
        elif kind == 3:  # what somebody in the guest copied
            self._take(3)
            self._text()
        elif kind != 2:  # the bell
            raise HypervisorRefused(f"the VNC server sends a message of the kind {kind}, which nobody asked for")

    def _rectangle(self) -> None:
        left, top, width, height, encoding = self._numbers(">HHHHi")
        if encoding != _RAW:
            raise HypervisorRefused(f"the VNC server sends pixels in the encoding {encoding}, which nobody asked for")
        if left + width > self._width or top + height > self._height:
            raise HypervisorRefused(
                f"the VNC server sends {width} x {height} at {left}, {top}, outside its {self._width} x {self._height}"
            )
        # A rectangle without width costs its sender nothing, so it must cost nothing here.
        for line in range(top, top + height) if width else ():
            start = line * self._width + left
            self._frame[4 * start : 4 * (start + width)] = self._take(4 * width)
            self._seen[start : start + width] = b"\1" * width

    def _text(self) -> str:
        (length,) = self._numbers(">I")
        if length > _LONGEST_TEXT:
            raise HypervisorRefused(f"the VNC server sends a text of {length} bytes")
        shown = self._take(length)[:200].decode(errors="replace")
        return "".join(character if character.isprintable() else "?" for character in shown)

    def _numbers(self, form: str) -> tuple[int, ...]:
        return struct.unpack(form, self._take(struct.calcsize(form)))

    def _left_s(self) -> float:
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        return left_s

    def _take(self, count: int) -> bytes:
        self._allowed -= count
        if self._allowed < 0:
            raise HypervisorRefused("the VNC server sends more than a display needs")
        left_s = self._left_s()
        while len(self._waiting) < count:
            data = self._stream.receive(left_s)
            left_s = self._left_s()
            if not data:
                raise HypervisorRefused("the VNC server hung up")
            self._waiting += data
        taken = bytes(self._waiting[:count])
        del self._waiting[:count]
        return taken
