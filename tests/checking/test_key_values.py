"""The guest's end of xenstore: messages as xs_wire.h has them, and answers that nobody may trust."""

from __future__ import annotations

import struct

import pytest

from lab.checking.key_values import guest_keys
from lab.contracts import CommandResult
from lab.errors import HypervisorRefused, NotSupported

HEAD = struct.Struct("<IIII")


class Guest:
    """Answers with what it was told to, and remembers what it was asked."""

    def __init__(self, stdout: bytes, status: int = 0) -> None:
        self.stdout, self.status, self.asked = stdout, status, b""

    def run(self, *argv: str, stdin: bytes = b"") -> CommandResult:
        self.asked = stdin
        return CommandResult(argv, self.status, self.stdout, b"sh: oh", 0.0)


def answer(kind: int, body: bytes) -> bytes:
    return HEAD.pack(kind, 1, 0, len(body)) + body


def test_a_key_is_asked_for_in_the_folder_of_the_domain() -> None:
    guest = Guest(answer(2, b"va\0lue"))

    assert guest_keys("xenstore", guest.run).read("key") == b"va\0lue"
    assert guest.asked == HEAD.pack(2, 1, 0, 9) + b"data/key\0"


def test_a_value_is_written_as_it_is() -> None:
    guest = Guest(answer(11, b"OK\0"))

    guest_keys("xenstore", guest.run).write("key", b"\xff\0x")

    assert guest.asked == HEAD.pack(11, 1, 0, 12) + b"data/key\0\xff\0x"


def test_a_key_that_is_not_there_is_none() -> None:
    assert guest_keys("xenstore", Guest(answer(16, b"ENOENT\0")).run).read("key") is None


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (answer(16, b"EACCES\0"), "xenstore refuses the guest: b'EACCES"),
        (answer(7, b""), "xenstore refuses the guest: b''"),
        (b"short", "the guest's xenbus gives no answer: 'sh: oh'"),
        (b"", "the guest's xenbus gives no answer"),
    ],
)
def test_an_answer_that_is_none_is_told(said: bytes, words: str) -> None:
    with pytest.raises(HypervisorRefused, match=words):
        guest_keys("xenstore", Guest(said).run).read("key")


def test_more_than_was_announced_is_not_taken() -> None:
    assert guest_keys("xenstore", Guest(answer(2, b"va") + b"lue").run).read("key") == b"va"


def test_a_write_into_nowhere_is_refused() -> None:
    with pytest.raises(HypervisorRefused, match="xenstore has no place for the guest's 'key'"):
        guest_keys("xenstore", Guest(answer(16, b"ENOENT\0")).run).write("key", b"")


def test_a_guest_without_a_device_has_no_way() -> None:
    with pytest.raises(NotSupported, match="this guest's kernel has no device for xenstore"):
        guest_keys("xenstore", Guest(b"", status=65).run).read("key")


def test_an_unknown_store_is_told_with_those_that_are_known() -> None:
    with pytest.raises(NotSupported, match=r"how a guest speaks to 'kvp' \(it knows xenstore\)"):
        guest_keys("kvp", Guest(b"").run)
