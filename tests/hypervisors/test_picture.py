"""Pictures of displays are PNG files."""

from __future__ import annotations

import struct
import zlib

from lab.hypervisors import _picture


def test_a_picture_holds_the_pixels_that_went_in() -> None:
    pixels = bytes(range(3 * 4 * 2))

    file = _picture.png(4, 2, pixels)

    assert file.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", file[16:24]) == (4, 2)
    start = file.index(b"IDAT")
    (length,) = struct.unpack(">I", file[start - 4 : start])
    lines = zlib.decompress(file[start + 4 : start + 4 + length])
    assert lines == b"\0" + pixels[:12] + b"\0" + pixels[12:]
    (check,) = struct.unpack(">I", file[start + 4 + length : start + 8 + length])
    assert check == zlib.crc32(file[start : start + 4 + length])
