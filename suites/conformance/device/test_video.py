"""device.video: the machine has a display that shows something."""

from __future__ import annotations

import zlib

from lab.suite import Capability, Evidence, Guest, Machine, TakesScreenshots, check, linux, who_can

SIGNATURE = b"\x89PNG\r\n\x1a\n"
WRITTEN_LINES = 4
LEAST_CHANGED = 24  # rows of points: more than a blinking cursor; a line of text has 16, its letters fewer
WRITE = f"""
[ -w /dev/tty0 ] || exit 0
i=0; while [ $i -lt {WRITTEN_LINES} ]; do i=$((i + 1)); echo "interop-lab $i looks at the screen"; done >/dev/tty0
echo written
"""
LEAST_WIDTH, LEAST_HEIGHT = 640, 400  # a VGA text screen is 720 x 400, the oldest graphics mode in use 640 x 480


@check("device.video", needs=(Capability.SCREENSHOTS,), defect=True)
def test_screen_shows_something(guest: Guest, machine: Machine, evidence: Evidence) -> None:
    """Catches a display that is missing, has no sensible size, stays blank, or shows nothing of the guest."""
    linux.settle(guest)
    screen = who_can(machine, TakesScreenshots)
    _, _, before = _decoded(screen.screenshot())
    wrote = linux.sh(guest, WRITE)
    picture = screen.screenshot()
    evidence.attach("screen.png", picture)
    width, height, rows = _decoded(picture)
    assert width >= LEAST_WIDTH, f"the screen is {width} x {height}"
    assert height >= LEAST_HEIGHT, f"the screen is {width} x {height}"
    length = len(rows) // height
    lines = [rows[start : start + length] for start in range(0, length * height, length)]
    # Blank is one colour: then every row but the first is like its neighbour, filtered or not.
    assert len(set(lines[1:])) > 1, f"the screen of {width} x {height} is blank"
    old = [before[start : start + length] for start in range(0, length * height, length)]
    changed = sum(one != other for one, other in zip(lines, old, strict=False)) if len(before) == len(rows) else height
    assert changed >= LEAST_CHANGED or not wrote, (
        f"{WRITTEN_LINES} lines were written to the guest's screen, and {changed} rows of points of {height} changed"
    )


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
