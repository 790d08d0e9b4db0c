"""device.video: the machine has a display that shows something."""

from __future__ import annotations

import zlib

from lab.suite import Capability, Evidence, Guest, Machine, TakesScreenshots, check, linux, who_can

SIGNATURE = b"\x89PNG\r\n\x1a\n"
LEAST_WIDTH, LEAST_HEIGHT = 640, 400  # a VGA text screen is 720 x 400, the oldest graphics mode in use 640 x 480


@check("device.video", needs=(Capability.SCREENSHOTS,))
def test_screen_shows_something(guest: Guest, machine: Machine, evidence: Evidence) -> None:
    """Catches a display that is missing, has no sensible size or stays blank."""
    linux.settle(guest)
    linux.sh(guest, "[ ! -w /dev/tty0 ] || echo interop-lab looks at the screen >/dev/tty0")
    picture = who_can(machine, TakesScreenshots).screenshot()
    evidence.attach("screen.png", picture)
    width, height, rows = _decoded(picture)
    assert width >= LEAST_WIDTH, f"the screen is {width} x {height}"
    assert height >= LEAST_HEIGHT, f"the screen is {width} x {height}"
    assert not _blank(rows, height), f"the screen of {width} x {height} is blank"


def _blank(rows: bytes, height: int) -> bool:
    """Whether all is one colour: then every row but the first is like its neighbour, filtered or not."""
    length = len(rows) // height
    return len({rows[start : start + length] for start in range(length, length * height, length)}) <= 1


def _decoded(picture: bytes) -> tuple[int, int, bytes]:
    """Width, height and the rows, each behind its filter, of a PNG.

    Portable Network Graphics (PNG), third edition, sections 5 and 11.
    """
    assert picture.startswith(SIGNATURE), f"not a PNG: it begins with {picture[:8]!r}"
    width = height = 0
    data = b""
    position = len(SIGNATURE)
    while position + 8 <= len(picture):
        length = int.from_bytes(picture[position : position + 4])
        kind = picture[position + 4 : position + 8]
        body = picture[position + 8 : position + 8 + length]
        if kind == b"IHDR":
            width, height = int.from_bytes(body[0:4]), int.from_bytes(body[4:8])
        elif kind == b"IDAT":
            data += body
        position += length + 12
    return width, height, zlib.decompressobj().decompress(data, 64 << 20)
