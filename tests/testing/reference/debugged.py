"""The reference machine with keys that it shares with its host, dumps of its memory, magic keys, and cold migration."""

from __future__ import annotations

import json
import re
import shutil
import struct
from collections.abc import Sequence
from pathlib import Path

from lab.contracts import KEY_NAME, KEY_VALUE_BYTES, MachineState, Migration
from lab.errors import HypervisorRefused
from tests.testing.reference.moving import PLACES, MovingMachine

_HEAD = struct.Struct("<IIII")
_READ, _WRITE, _ERROR = 2, 11, 16


class DebuggedMachine(MovingMachine):
    """With a xenstore of one folder, and places to be carried to."""

    def boot(self) -> None:
        super().boot()
        self._keys().unlink(missing_ok=True)

    # -- keys ----------------------------------------------------------------------------------------------

    def key_store(self) -> str:
        return "xenstore"

    def set_key(self, name: str, value: str) -> None:
        self._must_be_key(name)
        if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
            raise HypervisorRefused("that is no text")
        if len(value.encode()) > KEY_VALUE_BYTES:
            raise HypervisorRefused("that is too long")
        if self.lie != "keys-for-itself":
            self._keep({**self._read(), name: value.encode().hex()})

    def key(self, name: str) -> str | None:
        self._must_be_key(name)
        found = self._read().get(name)
        if found is None or self.lie == "keys-from-nobody":
            return None
        if len(found) // 2 > KEY_VALUE_BYTES:
            if self.lie == "keys-without-end":
                return None
            raise HypervisorRefused(f"the guest left more than {KEY_VALUE_BYTES} bytes")
        return bytes.fromhex(found).decode(errors="replace")

    def key_names(self) -> Sequence[str]:
        return sorted(name for name in self._read() if KEY_NAME.fullmatch(name))

    def delete_key(self, name: str) -> None:
        self._must_be_key(name)
        self._keep({key: value for key, value in self._read().items() if key != name})

    def xenbus(self, message: bytes) -> bytes:
        """What the guest's xenstore answers."""
        kind, request, _, length = _HEAD.unpack_from(message)
        path, _, value = message[_HEAD.size :][:length].partition(b"\0")
        name = path.decode().removeprefix("data/")
        known = self._read()
        if kind == _WRITE:
            self._keep({**known, name: value.hex()})
            answer = b"OK\0"
        elif kind == _READ and name in known:
            answer = bytes.fromhex(known[name])
        else:
            kind, answer = _ERROR, b"ENOENT\0"
        return _HEAD.pack(kind, request, 0, len(answer)) + answer

    def _must_be_key(self, name: str) -> None:
        if self.lie != "keys-of-the-dead":
            self.must_run()
        if not KEY_NAME.fullmatch(name) and self.lie != "any-key":
            raise HypervisorRefused(f"{name!r} is no key")

    def _keys(self) -> Path:
        return self.folder / "keys"

    def _read(self) -> dict[str, str]:
        found: dict[str, str] = json.loads(self._keys().read_text()) if self._keys().exists() else {}
        return found

    def _keep(self, known: dict[str, str]) -> None:
        self._keys().write_text(json.dumps(known))

    # -- cold migration ------------------------------------------------------------------------------------

    def cold_destinations(self) -> Sequence[str]:
        return () if self.state() is not MachineState.STOPPED else self.destinations()

    def migrate_cold(self, destination: str, *, timeout_s: float = 900.0) -> Migration:
        if destination not in PLACES or (self.state() is not MachineState.STOPPED and self.lie != "carries-what-runs"):
            raise HypervisorRefused(f"{self.name} cannot be brought to {destination}")
        if self.lie == "carries-no-disk":
            shutil.rmtree(self.root / "var/tmp")
            (self.root / "var/tmp").mkdir()
        if self.lie == "carries-no-memory":
            self.discard_saved_state()
        if self.lie != "carries-in-words":
            self._place = destination
        return Migration(0.1, 100.0, 1 << 20)

    # -- dumps, magic keys ---------------------------------------------------------------------------------

    def dump_memory(self, file: Path) -> None:
        self.must_run()
        if file.exists() and self.lie != "dump-over-a-file":
            raise HypervisorRefused(f"{file} is there already")
        held = b"".join(path.read_bytes() for path in sorted((self.root / "run").iterdir()) if path.is_file())
        head = b"\x7fELF".ljust(16, b"\0") + struct.pack("<H", 4)
        with file.open("wb") as dump:
            dump.write(head + (b"" if self.lie == "dump-of-nothing" else held))
            dump.truncate(self.spec.profile.memory_mib << 20)
        if self.lie == "dump-ends-it":
            super().boot()
            self.generation -= 1

    def send_sysrq(self, key: str) -> None:
        if self.lie != "any-sysrq":
            if not re.fullmatch(r"[0-9a-z]", key, re.ASCII):
                raise HypervisorRefused(f"{key!r} is no magic key")
            self.must_run()
        if self.lie != "sysrq-nowhere":
            with (self.root / "dev/console").open("a") as console:
                console.write("sysrq: HELP : loglevel(0-9) reboot(b) crash(c)\n")
