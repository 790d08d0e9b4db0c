"""The smallest program that sets a guest's clock to a part of a second: 273 bytes without a library.

A restored guest runs in an emulator that has translated nothing yet. To load a dynamic `date` and its library there
was a third of what a new identity cost, and busybox's knows whole seconds only. The source is `_linux_clock.s`, from
which `as --64` and `ld -Ttext 0x400000 --oformat binary` make these bytes; a test does that and compares.
"""

from __future__ import annotations

MACHINE = "x86_64"
"""Where it runs, as `uname -m` says it."""

PROGRAM = bytes.fromhex(
    "7f454c4602010100000000000000000002003e00010000007800400000000000400000000000000000000000000000000000"
    "0000400038000100000000000000010000000500000000000000000000000000400000000000000040000000000011010000"
    "00000000110100000000000000100000000000008b0c2431ffffc97461ffc783f902755a488b742418e8570000004889c348"
    "8b742410e84a000000535031ff4889e6b8e30000000f05bf0100000085c0752cbf04014000be0100000031d2b8020000000f"
    "0589c7be07520000b8100000000f0531ff85c07405bf02000000b83c0000000f0531c00fb61683ea3083fa09770d488d0480"
    "488d044248ffc6ebe8c32f6465762f7572616e646f6d00"
)


def as_text() -> str:
    """For `printf %b`: POSIX gives it `\\0` and three octal digits for any byte."""
    return "".join(f"\\0{byte:03o}" for byte in PROGRAM)
