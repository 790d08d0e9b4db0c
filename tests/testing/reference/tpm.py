"""As much of a TPM 2.0 as the contract asks for: random numbers, one register, one place to store.

Commands and structures as in `lab.checking.tpm`, seen from the other side.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import struct
from pathlib import Path
from typing import Any

_RANDOM, _READ, _EXTEND = 0x17B, 0x17E, 0x182
_DEFINE, _UNDEFINE, _WRITE, _STORED = 0x12A, 0x122, 0x137, 0x14E
_PASSWORD = 13  # bytes of an empty one
_START = "00" * 32


class SmallTpm:
    """Its state is a file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def reset(self) -> None:
        """As at power on: registers begin anew, what is stored stays."""
        self._write({**self._read(), "register": _START})

    def clear(self) -> None:
        self._write({"register": _START, "stored": ""})

    def answer(self, command: bytes) -> bytes:
        _, _, code = struct.unpack_from(">HII", command)
        body, known = command[10:], self._read()
        said = b""
        if code == _RANDOM:
            count = struct.unpack_from(">H", body)[0]
            said = struct.pack(">H", count) + secrets.token_bytes(count)
        elif code == _READ:
            said = struct.pack(">I", 0) + body + struct.pack(">IH", 1, 32) + bytes.fromhex(known["register"])
        elif code == _EXTEND:
            both = bytes.fromhex(known["register"]) + body[-32:]
            known["register"] = hashlib.sha256(both).hexdigest()
        elif code == _WRITE:
            at = 8 + _PASSWORD
            size = struct.unpack_from(">H", body, at)[0]
            known["stored"] = body[at + 2 : at + 2 + size].hex()
        elif code == _STORED:
            data = bytes.fromhex(known["stored"])
            said = struct.pack(">IH", len(data) + 2, len(data)) + data
        elif code == _UNDEFINE:
            known["stored"] = ""
        self._write(known)
        return struct.pack(">HII", 0x8001, 10 + len(said), 0) + said

    def _read(self) -> dict[str, Any]:
        if not self._file.exists():
            return {"register": _START, "stored": ""}
        found: dict[str, Any] = json.loads(self._file.read_text())
        return found

    def _write(self, known: dict[str, Any]) -> None:
        self._file.write_text(json.dumps(known))
