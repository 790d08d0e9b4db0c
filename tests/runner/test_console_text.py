"""The console of a machine for a person: whole, in order, and without what deceives a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import pytest

from lab import waiting
from lab.contracts import Machine, MachineState
from lab.runner import console_text


class Talker:
    """A machine whose console says the next thing each time it is read, and which then ends."""

    def __init__(self, *logs: bytes) -> None:
        self._logs = list(logs)

    def state(self) -> MachineState:
        return MachineState.RUNNING if len(self._logs) > 1 else MachineState.STOPPED

    def console(self) -> bytes:
        return self._logs.pop(0) if len(self._logs) > 1 else self._logs[0]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "pause", lambda seconds: None)


def read(logs: Sequence[bytes], *, follow: bool = True, raw: bool = False) -> bytes:
    pieces: Iterator[bytes] = console_text.read(cast(Machine, Talker(*logs)), follow=follow, raw=raw)
    return b"".join(pieces)


def test_all_so_far_is_shown_once() -> None:
    assert read([b"one\ntwo", b"one\ntwo\nthree"], follow=False) == b"one\ntwo"


def test_following_shows_each_line_once_and_ends_with_the_machine() -> None:
    assert read([b"one\n", b"one\ntw", b"one\ntwo\n", b"one\ntwo\nlast"]) == b"one\ntwo\nlast"


def test_escape_sequences_are_taken_out_even_when_they_come_in_two_pieces() -> None:
    assert read([b"a\x1b[2", b"a\x1b[2Jb\n", b"a\x1b[2Jb\n"]) == b"ab\n"


def test_raw_is_what_the_machine_sent() -> None:
    assert read([b"a\x1b[2", b"a\x1b[2J\0\n"], raw=True) == b"a\x1b[2J\0\n"


def test_a_log_whose_middle_was_dropped_goes_on_where_it_was() -> None:
    start, end = b"begin\n", b"end of what was seen\n"

    assert read([start + b"x" * 9000 + b"\n" + end, start + end + b"new\n"]).endswith(end + b"new\n")
