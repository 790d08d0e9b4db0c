"""What checks say to a TPM: understood by a real one, and a refusal is told with its number."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab import process, waiting
from lab.checking import tpm
from lab.hypervisors import _machine_directory


class Emulated:
    """A guest whose device file is a line to an emulator."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def run(self, *argv: str, stdin: bytes = b"") -> Any:
        assert argv[:2] == ("sh", "-c")
        assert argv[2].startswith("exec 3<>/dev/tpm0 && dd bs=4096 count=1 >&3")
        with _machine_directory.connect(self._folder, "line") as line:
            line.sendall(stdin)
            return SimpleNamespace(status=0, stdout=line.recv(4096), err="", out="")

    def listens(self) -> bool:
        """A socket has its name before anybody listens on it."""
        try:
            _machine_directory.connect(self._folder, "line").close()
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tpm.Tpm]:
    folder = tmp_path_factory.mktemp("tpm")
    command = [process.find("swtpm", package="swtpm"), "socket", "--tpm2", "--tpmstate", "dir=."]
    command += ["--server", "type=unixio,path=line", "--flags", "not-need-init,startup-clear"]
    # Each command of a check opens the device anew, and so it is here.
    emulator = subprocess.Popen(command, cwd=folder)
    try:
        guest: Any = Emulated(folder)
        waiting.until(guest.listens, what="swtpm to listen", timeout_s=60)
        yield tpm.Tpm(guest, "/dev/tpm0")
    finally:
        emulator.kill()
        emulator.wait(60)


def test_random_bytes_are_as_many_as_were_asked_for(own: tpm.Tpm) -> None:
    first, second = own.random(32), own.random(32)

    assert (len(first), len(second)) == (32, 32)
    assert first != second


def test_a_register_is_what_was_measured_into_it(own: tpm.Tpm) -> None:
    before = own.register(tpm.DEBUG_REGISTER)

    own.extend(tpm.DEBUG_REGISTER, b"\x01" * 32)

    assert own.register(tpm.DEBUG_REGISTER) == hashlib.sha256(before + b"\x01" * 32).digest()
    assert own.register(0) == bytes(32)


def test_what_is_stored_is_read_back_until_it_is_forgotten(own: tpm.Tpm) -> None:
    own.store(b"sixteen bytes ..")

    assert own.stored(16) == b"sixteen bytes .."
    own.forget()
    with pytest.raises(AssertionError, match=r"the TPM refuses command 0x14e with 0x[0-9a-f]+"):
        own.stored(16)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "/dev/tpm0 answers 0 bytes to command 0x17b"),
        (b"\x80\x01\0\0\0\x0a\0\0\x01\x01", "the TPM refuses command 0x17b with 0x101"),
        (b"\x80\x01\0\0\0\x0c\0\0\0\0", "the TPM's answer to 0x17b says 12 bytes and has 10"),
    ],
)
def test_an_answer_that_is_none_fails_with_what_came(answer: bytes, said: str) -> None:
    guest: Any = SimpleNamespace(run=lambda *argv, stdin: SimpleNamespace(status=0, stdout=answer, err="", out=""))

    with pytest.raises(AssertionError, match=said):
        tpm.Tpm(guest, "/dev/tpm0").random(8)


def test_a_device_that_takes_nothing_fails_with_the_guests_words() -> None:
    guest: Any = SimpleNamespace(run=lambda *argv, stdin: SimpleNamespace(status=1, stdout=b"", err="busy", out=""))

    with pytest.raises(AssertionError, match="/dev/tpm0 takes no commands: busy"):
        tpm.Tpm(guest, "/dev/tpm0").random(8)
