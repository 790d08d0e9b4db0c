"""The kernel inside a Linux bzImage: Xen builds a domain from the plain ELF file three times as fast under emulation.

Linux, Documentation/arch/x86/boot.rst: `payload_offset` and `payload_length` of the setup header.
"""

from __future__ import annotations

import lzma
import shutil
import struct
import tempfile
import zlib
from pathlib import Path

from lab import process

_LARGEST = 512 << 20
_TOOLS = {b"\x02\x21\x4c\x18": "lz4", b"\x28\xb5\x2f\xfd": "zstd"}  # what Python cannot undo by itself


def plain(kernel: Path) -> bytes | None:
    """The ELF file inside, or `None` where there is none or what undoes its compression is not on this machine."""
    payload = _payload(kernel.read_bytes())
    try:
        found = _decompressed(payload)
    except (zlib.error, lzma.LZMAError):
        return None
    return found if found.startswith(b"\x7fELF") else None


def _payload(image: bytes) -> bytes:
    if len(image) < 0x250 or image[0x202:0x206] != b"HdrS":
        return b""
    start = ((image[0x1F1] or 4) + 1) * 512
    offset, length = struct.unpack_from("<II", image, 0x248)
    return image[start + offset :][:length]


def _decompressed(payload: bytes) -> bytes:
    if payload.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(31).decompress(payload, _LARGEST)
    if payload.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMADecompressor().decompress(payload, _LARGEST)
    tool = _TOOLS.get(payload[:4])
    if tool is None or shutil.which(tool) is None:
        return b""
    with tempfile.TemporaryDirectory(prefix="interop-lab-kernel-") as folder:
        packed, file = Path(folder, "packed"), Path(folder, "kernel")
        # Behind the stream stands the length of what is inside, which the tools would take for a broken one.
        packed.write_bytes(payload[:-4])
        to = ["-o", str(file)] if tool == "zstd" else [str(file)]
        process.run([tool, "-dqf", str(packed), *to], timeout_s=60)
        return file.read_bytes() if file.is_file() else b""
