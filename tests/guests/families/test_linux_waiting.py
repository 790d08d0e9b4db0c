"""What waits in a saved guest: what it is told, what it may answer, and that its copy has what it was told."""

from __future__ import annotations

import base64
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.errors import GuestCommandFailed, GuestUnreachable
from lab.guests.families import _linux_waiting as waiting
from lab.guests.families._linux_waiting import Server
from lab.guests.identity import Identity

NOW = datetime(2026, 11, 22, 8, 0, 0, 250_000, tzinfo=UTC)


@pytest.fixture
def line() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Our end and the guest's."""
    ours, guests = socket.socketpair()
    with ours, guests:
        yield ours, guests


def _shells() -> list[list[str]]:
    found = [[shell] for shell in ("dash", "bash") if shutil.which(shell)]
    return [*found, *([["busybox", "sh"]] if shutil.which("busybox") else [])]


@given(data=st.binary(max_size=200))
@settings(max_examples=20, deadline=None)
def test_any_key_comes_out_of_the_shell_as_it_went_in(data: bytes) -> None:
    for shell in _shells():
        script = 'IFS= read -r key; printf %b "$key"'
        sent = waiting._escaped(data).encode() + b"\n"
        finished = subprocess.run([*shell, "-c", script], input=sent, capture_output=True, check=True)

        assert finished.stdout == data


def test_a_host_key_is_what_dropbears_own_converter_makes_of_it(tmp_path: Path) -> None:
    converter = next((at for at in ("/usr/lib/dropbear/dropbearconvert", shutil.which("dropbearconvert")) if at), None)
    if converter is None or not Path(converter).exists():
        pytest.skip("dropbearconvert is not here")
    identity = Identity.make("g")
    (tmp_path / "key").write_text(identity.host_key_private)
    (tmp_path / "key").chmod(0o600)
    subprocess.run(
        [converter, "openssh", "dropbear", tmp_path / "key", tmp_path / "made"], check=True, capture_output=True
    )

    assert waiting._dropbear_key(identity) == (tmp_path / "made").read_bytes()


def test_what_is_told_is_seven_lines_and_ends_with_a_word() -> None:
    identity = Identity.make("g-1")

    for server in Server:
        now, entropy, name, machine_id, key, public, end = waiting.content(server, identity, NOW).decode().splitlines()

        assert now == f"{NOW.timestamp() * 100:.0f}"
        assert len(base64.b64decode(entropy)) == 48
        assert (name, machine_id, public, end) == (
            identity.hostname,
            identity.machine_id,
            identity.host_key_public,
            "end",
        )
        assert key.isprintable()


def test_each_copy_is_told_other_entropy() -> None:
    identity = Identity.make("g")

    told = {waiting.content(Server.OPENSSH, identity, NOW).splitlines()[1] for _ in range(3)}

    assert len(told) == 3


@pytest.mark.parametrize(("said", "found"), [("dropbear", Server.DROPBEAR), ("openssh", Server.OPENSSH)])
def test_a_waiter_says_which_server_it_renews(
    line: tuple[socket.socket, socket.socket], said: str, found: Server
) -> None:
    line[1].sendall(f"waiting {said}\r\n".encode())

    assert waiting.await_waiter(line[0]) is found


def test_a_guest_that_the_waiter_does_not_know_has_none(line: tuple[socket.socket, socket.socket]) -> None:
    line[1].sendall(b"waiting nobody\n")

    assert waiting.await_waiter(line[0]) is None


@pytest.mark.parametrize(("answer", "reseeded"), [(b"done reseeded yes\n", True), (b"done reseeded no\n", False)])
def test_a_copy_is_told_and_answers(line: tuple[socket.socket, socket.socket], answer: bytes, reseeded: bool) -> None:
    identity = Identity.make("g")
    heard = bytearray()

    def guest() -> None:
        while not heard.endswith(b"\nend\n"):
            heard.extend(line[1].recv(4096))
        line[1].sendall(answer)

    there = threading.Thread(target=guest)
    there.start()
    told = waiting.tell(line[0], Server.DROPBEAR, identity)
    there.join()

    assert told is reseeded
    assert identity.machine_id.encode() in heard


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"done\n", "did not take its new identity: it says 'done'"),
        (b"\xff\x1b[31m\n", "did not take its new identity"),
        (b"x" * 9000, "makes no sense"),
    ],
)
def test_an_answer_that_makes_no_sense_is_an_error(
    line: tuple[socket.socket, socket.socket], answer: bytes, message: str
) -> None:
    line[1].sendall(answer)

    with pytest.raises(GuestCommandFailed, match=message):
        waiting.tell(line[0], Server.OPENSSH, Identity.make("g"))


def test_a_line_that_ends_is_an_error(line: tuple[socket.socket, socket.socket]) -> None:
    line[1].close()

    with pytest.raises(GuestUnreachable, match="the line into the guest"):
        waiting.tell(line[0], Server.OPENSSH, Identity.make("g"))


def test_a_silent_waiter_is_not_waited_for_for_ever(
    line: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "LINE_TIMEOUT_S", 0.05)

    with pytest.raises(GuestUnreachable, match="does not answer"):
        waiting.await_waiter(line[0])


def test_the_scripts_are_shell_that_every_shell_can_read() -> None:
    for script in (waiting.START, waiting.WAITER):
        for shell in _shells():
            subprocess.run([*shell, "-n", "-c", script], check=True)
