"""Speaks to a guest's TPM 2.0 by its device file, because a small guest has no program for it.

Commands and answers are those of the Trusted Platform Module Library, part 3 (commands), their values those of part 2
(structures), revision 1.59. All numbers are big endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from lab import waiting
from lab.checking import linux
from lab.guests.guest import Guest

SHA256 = 0x000B
DEBUG_REGISTER = 16  # PC Client Platform: resettable, and measured into by nobody

_NO_SESSIONS, _SESSIONS = 0x8001, 0x8002
_GET_RANDOM, _PCR_READ, _PCR_EXTEND = 0x17B, 0x17E, 0x182
_NV_DEFINE, _NV_UNDEFINE, _NV_WRITE, _NV_READ = 0x12A, 0x122, 0x137, 0x14E
_OWNER = 0x40000001
_NV_INDEX = 0x01800ABC  # of those that an owner may define
_NV_OWNER_READS_AND_WRITES = 0x00020002  # TPMA_NV_OWNERWRITE | TPMA_NV_OWNERREAD
_EMPTY_PASSWORD = struct.pack(">IIHBH", 9, 0x40000009, 0, 0, 0)  # TPM_RS_PW

# One write is one command and one read its answer (Documentation/security/tpm); dd does exactly one of each.
_EXCHANGE = "exec 3<>{device} && dd bs=4096 count=1 >&3 2>/dev/null && dd bs=4096 count=1 <&3 2>/dev/null"


@dataclass(frozen=True)
class Tpm:
    """The TPM of a guest."""

    guest: Guest
    device: str

    def random(self, count: int) -> bytes:
        """So many random bytes, at most 32."""
        return _sized(self._do(_NO_SESSIONS, _GET_RANDOM, struct.pack(">H", count)))

    def register(self, number: int) -> bytes:
        """The SHA-256 value of a platform configuration register."""
        answer = self._do(_NO_SESSIONS, _PCR_READ, _selection(number))
        # A counter, the selection of what was read, then a list of values.
        return _sized(answer[4 + len(_selection(number)) + 4 :])

    def extend(self, number: int, digest: bytes) -> None:
        """Measure a SHA-256 digest into a register: it becomes the digest of both."""
        value = struct.pack(">IH", 1, SHA256) + digest
        self._do(_SESSIONS, _PCR_EXTEND, struct.pack(">I", number) + _EMPTY_PASSWORD + value)

    def store(self, data: bytes) -> None:
        """Keep a few bytes in the TPM's own memory, where `stored` finds them."""
        public = struct.pack(">IHIHH", _NV_INDEX, SHA256, _NV_OWNER_READS_AND_WRITES, 0, len(data))
        define = struct.pack(">I", _OWNER) + _EMPTY_PASSWORD + struct.pack(">HH", 0, len(public)) + public
        self._do(_SESSIONS, _NV_DEFINE, define)
        write = struct.pack(">II", _OWNER, _NV_INDEX) + _EMPTY_PASSWORD
        self._do(_SESSIONS, _NV_WRITE, write + struct.pack(">H", len(data)) + data + struct.pack(">H", 0))

    def stored(self, size: int) -> bytes:
        """What `store` kept."""
        read = struct.pack(">II", _OWNER, _NV_INDEX) + _EMPTY_PASSWORD + struct.pack(">HH", size, 0)
        return _sized(self._do(_SESSIONS, _NV_READ, read)[4:])  # after the size of the parameters

    def forget(self) -> None:
        """Remove what `store` kept."""
        self._do(_SESSIONS, _NV_UNDEFINE, struct.pack(">II", _OWNER, _NV_INDEX) + _EMPTY_PASSWORD)

    def _do(self, tag: int, code: int, body: bytes) -> bytes:
        command = struct.pack(">HII", tag, 10 + len(body), code) + body
        result = self.guest.run("sh", "-c", _EXCHANGE.format(device=self.device), stdin=command)
        assert result.status == 0, f"{self.device} takes no commands: {result.err or result.out}"
        answer = result.stdout
        assert len(answer) >= 10, f"{self.device} answers {len(answer)} bytes to command {code:#x}"
        _, size, status = struct.unpack_from(">HII", answer)
        assert status == 0, f"the TPM refuses command {code:#x} with {status:#x}"
        assert size == len(answer), f"the TPM's answer to {code:#x} says {size} bytes and has {len(answer)}"
        return answer[10:]


def find(guest: Guest, *, timeout_s: float = 60.0) -> Tpm:
    """The guest's TPM, once its driver is there. Raises `WaitedTooLong` when none comes."""
    linux.sh(guest, "modprobe -a tpm_crb tpm_tis 2>/dev/null || true")
    waiting.until(
        lambda: guest.run("test", "-c", "/dev/tpm0").status == 0,
        what="the guest to have a TPM (/dev/tpm0)",
        timeout_s=timeout_s,
    )
    return Tpm(guest, "/dev/tpm0")


def _selection(number: int) -> bytes:
    bits = bytearray(3)
    bits[number // 8] |= 1 << number % 8
    return struct.pack(">IHB", 1, SHA256, 3) + bytes(bits)


def _sized(data: bytes) -> bytes:
    (size,) = struct.unpack_from(">H", data)
    return data[2 : 2 + size]
