"""Pictures of displays as PNG files (PNG 1.2, W3C REC-PNG)."""

from __future__ import annotations

import struct
import zlib


def png(width: int, height: int, pixels: bytes) -> bytes:
    """From three bytes a pixel (red, green, blue), line by line, the upper left first."""
    line = width * 3
    # Each line begins with its filter; 0 is none.
    rows = b"".join(b"\0" + pixels[start : start + line] for start in range(0, line * height, line))
    shape = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", shape) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
