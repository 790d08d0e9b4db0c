"""Nothing is sent for a channel after its CLOSE: real servers break the whole connection off for it."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator

import paramiko
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import waiting
from lab.ssh._connection import Connection
from lab.ssh._order import ChannelOrder

WINDOW_ADJUST, DATA, EOF, CLOSE, REQUEST = 93, 94, 96, 97, 98
OPEN_CONFIRMATION = 91


def _for(kind: int, channel: int) -> bytes:
    return struct.pack(">BI", kind, channel)


@pytest.fixture(params=["sshd", "dropbear"])
def connection(request: pytest.FixtureRequest) -> Iterator[Connection]:
    server = request.getfixturevalue(request.param)
    connection = Connection.open(server.endpoint, server.login, timeout_s=60)
    yield connection
    connection.close()


def _run(connection: Connection, command: bytes) -> bytes:
    """What a command writes; its channel is closed when this returns."""
    pump = connection.exec(command, time.monotonic() + 60)
    written = b""
    while not pump.has_ended():
        pump.wait(time.monotonic() + 60, at_most_s=0.05)
        written += pump.take()[0]
    waiting.until(pump.is_closed, what="the server to close the channel", timeout_s=60)
    pump.close()
    return written


def test_an_end_of_input_that_comes_too_late_leaves_the_connection_whole(connection: Connection) -> None:
    assert _run(connection, b"echo one") == b"one\n"

    late = paramiko.Message()
    late.add_byte(bytes([EOF]))
    late.add_int(0)  # the number that both servers give to the first channel
    connection._transport._send_user_message(late)  # type: ignore[attr-defined]

    assert _run(connection, b"echo two") == b"two\n"


def test_a_number_that_is_given_anew_is_a_channel_again(connection: Connection) -> None:
    for text in (b"one", b"two", b"three"):
        pump = connection.exec(b"cat", time.monotonic() + 60)
        pump.send(text, time.monotonic() + 60)
        pump.end_input()
        assert pump.read(time.monotonic() + 60)[0] == text
        waiting.until(pump.is_closed, what="the server to close the channel", timeout_s=60)
        pump.close()


@pytest.mark.parametrize("kind", [WINDOW_ADJUST, DATA, EOF, CLOSE, REQUEST])
def test_nothing_follows_a_close(kind: int) -> None:
    order = ChannelOrder()
    assert order.admits(_for(CLOSE, 7))

    assert not order.admits(_for(kind, 7))
    assert order.admits(_for(kind, 8))


def test_the_close_of_a_channel_says_nothing_of_messages_that_are_no_channels() -> None:
    order = ChannelOrder()
    order.admits(_for(CLOSE, 7))

    assert order.admits(_for(80, 7))  # a global request
    assert order.admits(_for(90, 7))  # another channel is opened


@given(kind=st.integers(0, 255), content=st.binary(max_size=12))
def test_only_a_confirmed_open_makes_a_closed_number_good_again(kind: int, content: bytes) -> None:
    order = ChannelOrder()
    order.admits(_for(CLOSE, 7))

    order.came(kind, content)

    is_open_again = kind == OPEN_CONFIRMATION and content[4:8] == struct.pack(">I", 7)
    assert order.admits(_for(DATA, 7)) == is_open_again


@given(message=st.binary(max_size=4))
def test_a_message_that_is_cut_off_is_not_ours_to_judge(message: bytes) -> None:
    assert ChannelOrder().admits(message)
