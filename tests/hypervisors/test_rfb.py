"""A VNC server's picture is taken as it was sent; a server that lies, babbles or stalls is refused with a sentence."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import HypervisorRefused
from lab.hypervisors import _rfb

GREETING = b"RFB 003.008\n" + b"\x01\x01" + bytes(4)
WIDTH, HEIGHT = 7, 5
FRAME = bytes(range(WIDTH * HEIGHT * 3))


@dataclass
class Server:
    """Says what it has to say, in pieces, whatever it is asked; then hangs up, or breaks as told."""

    speech: bytes
    piece: int = 1 << 16
    ends_with: BaseException | None = None
    heard: bytes = b""
    said: int = 0
    limits: list[float | None] = field(default_factory=list)

    def receive(self, timeout_s: float | None = None) -> bytes:
        self.limits.append(timeout_s)
        data = self.speech[self.said : self.said + self.piece]
        self.said += len(data)
        if not data and self.ends_with is not None:
            raise self.ends_with
        return data

    def send(self, data: bytes) -> None:
        self.heard += data


def screen(width: int = WIDTH, height: int = HEIGHT, name: bytes = b"QEMU (lab-one)") -> bytes:
    return struct.pack(">HH16xI", width, height, len(name)) + name


def rectangle(left: int, top: int, width: int, height: int, encoding: int = 0) -> bytes:
    """With the pixels that FRAME has there; the fourth byte of each is anything."""
    head = struct.pack(">HHHHi", left, top, width, height, encoding)
    places = ((line, column) for line in range(top, top + height) for column in range(left, left + width))
    starts = (3 * (line * WIDTH + column) for line, column in places)
    return head + b"".join(FRAME[start : start + 3] + b"\xee" for start in starts)


def update(*rectangles: bytes) -> bytes:
    return struct.pack(">BxH", 0, len(rectangles)) + b"".join(rectangles)


WHOLE = update(rectangle(0, 0, WIDTH, HEIGHT))


def taken(speech: bytes, piece: int = 1 << 16) -> _rfb.Picture:
    return _rfb.picture(Server(speech, piece), timeout_s=30)


def test_a_display_is_asked_for_whole_and_without_compression() -> None:
    server = Server(GREETING + screen() + WHOLE)

    assert _rfb.picture(server, timeout_s=30) == _rfb.Picture(WIDTH, HEIGHT, FRAME)

    assert server.heard == (
        b"RFB 003.008\n\x01\x01"
        b"\x00\x00\x00\x00\x20\x18\x00\x01\x00\xff\x00\xff\x00\xff\x00\x08\x10\x00\x00\x00"
        b"\x02\x00\x00\x01\x00\x00\x00\x00"
        b"\x03\x00\x00\x00\x00\x00" + struct.pack(">HH", WIDTH, HEIGHT)
    )
    assert all(limit is not None and limit <= 30 for limit in server.limits)


@given(st.integers(1, 40), st.integers(0, HEIGHT), st.integers(0, WIDTH))
def test_a_display_that_comes_in_pieces_is_put_together(piece: int, row: int, column: int) -> None:
    parts = (
        rectangle(0, 0, WIDTH, row),
        rectangle(0, row, column, HEIGHT - row),
        rectangle(column, row, WIDTH - column, HEIGHT - row),
    )
    in_one = GREETING + screen() + update(*parts)
    in_three = GREETING + screen() + b"".join(update(part) for part in parts)

    assert taken(in_one, piece).pixels == FRAME
    assert taken(in_three, piece).pixels == FRAME


def test_what_comes_between_is_passed_over() -> None:
    bell = b"\x02"
    clipboard = b"\x03" + bytes(3) + struct.pack(">I", 5) + b"hello"
    palette = struct.pack(">BxHH", 1, 0, 2) + bytes(12)

    assert taken(GREETING + screen() + bell + clipboard + update() + palette + WHOLE).pixels == FRAME


@pytest.mark.parametrize(
    ("speech", "words"),
    [
        (b"", "the VNC server hung up"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "no VNC server of protocol 3.8 answers: b'SSH-2.0-Open'"),
        (b"RFB 003.003\n", "no VNC server of protocol 3.8 answers"),
        (b"RFB 003.008\n\x00" + struct.pack(">I", 9) + b"too \x1b[many", r"the VNC server refuses: too \?\[man"),
        (b"RFB 003.008\n\x00" + struct.pack(">I", 1 << 30), "the VNC server sends a text of 1073741824 bytes"),
        (b"RFB 003.008\n\x02\x02\x13", "the VNC server wants a password"),
        (b"RFB 003.008\n\x01\x01" + struct.pack(">II", 1, 2) + b"no", "the VNC server lets nobody in: no"),
        (GREETING + screen(0, 5), "a display of 0 x 5 is not taken"),
        (GREETING + screen(65535, 1), "a display of 65535 x 1 is not taken"),
        (GREETING + screen(16000, 16000), "a display of 16000 x 16000 is not taken"),
        (GREETING + screen() + b"\xff", "a message of the kind 255, which nobody asked for"),
        (GREETING + screen() + update(rectangle(0, 0, 1, 1, 7)), "pixels in the encoding 7, which nobody asked for"),
        (GREETING + screen() + update(rectangle(0, 0, 1, 1, -223)), "in the encoding -223, which nobody asked for"),
        (GREETING + screen() + update(struct.pack(">HHHHi", 6, 0, 2, 1, 0)), "2 x 1 at 6, 0, outside its 7 x 5"),
        (GREETING + screen() + update(struct.pack(">HHHHi", 0, 65535, 1, 65535, 0)), "outside its 7 x 5"),
        (GREETING + screen() + b"\x02" * (2 << 20), "the VNC server sends more than a display needs"),
        (GREETING + screen() + update(rectangle(0, 0, 1, 1)) * 200_000, "sends more than a display needs"),
        (GREETING + screen() + WHOLE[:-1], "the VNC server hung up"),
    ],
)
def test_what_is_no_display_is_refused(speech: bytes, words: str) -> None:
    with pytest.raises(HypervisorRefused, match=words) as told:
        taken(speech)

    assert told.value.what.isprintable()


def test_a_server_that_stalls_is_given_up() -> None:
    server = Server(GREETING + screen(), ends_with=TimeoutError())

    with pytest.raises(HypervisorRefused, match="the VNC server did not show its display within 30 s"):
        _rfb.picture(server, timeout_s=30)


def test_a_server_that_talks_beyond_the_time_is_given_up() -> None:
    with pytest.raises(HypervisorRefused, match="the VNC server did not show its display within 0 s"):
        _rfb.picture(Server(GREETING + screen() + WHOLE), timeout_s=0)


def test_a_connection_that_breaks_is_told() -> None:
    server = Server(GREETING, ends_with=ConnectionResetError("reset by peer"))

    with pytest.raises(HypervisorRefused, match="the connection to the VNC server broke: reset by peer"):
        _rfb.picture(server, timeout_s=30)


def test_rectangles_without_width_cost_nothing() -> None:
    nothing = struct.pack(">HHHHi", 0, 0, 0, HEIGHT, 0)

    assert taken(GREETING + screen() + update(*[nothing] * 65535) + WHOLE).pixels == FRAME


@given(st.binary(max_size=400), st.booleans())
def test_noise_is_refused_and_nothing_worse(noise: bytes, greeted: bool) -> None:
    speech = (GREETING + screen() if greeted else b"") + noise

    with pytest.raises(HypervisorRefused):
        taken(speech)


@given(st.data())
def test_one_wrong_byte_is_refused_or_changes_a_picture_of_that_size(data: st.DataObject) -> None:
    speech = bytearray(GREETING + screen() + WHOLE)
    place = data.draw(st.integers(0, len(speech) - 1))
    speech[place] = data.draw(st.integers(0, 255))
    server = Server(bytes(speech), data.draw(st.integers(1, 64)))

    try:
        found = _rfb.picture(server, timeout_s=30)
    except HypervisorRefused:
        return

    assert len(found.pixels) == 3 * found.width * found.height
    assert found.width * found.height <= _rfb.LARGEST_PIXELS
