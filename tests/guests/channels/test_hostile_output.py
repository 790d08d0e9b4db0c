"""What a hostile guest sends is bounded, and is data: it ends no command early, swallows none, colours no message."""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import paramiko
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.contracts import SshLogin
from lab.errors import CommandTimedOut, GuestCommandFailed, GuestLoginRefused, GuestUnreachable, HostKeyChanged
from lab.guests.channels import ssh
from lab.guests.identity import Identity
from lab.ssh import _shell
from lab.ssh._pump import Bounded
from lab.ssh._shell import Marked, ShellLost

GIB = 1 << 30
NASTY = b"\x00\xff\xfe\x1b[2J\x1b]0;title\x07\xc3(\r\x9b31m"


def opened(server: Any, client_key: Path) -> ssh.SshChannel:
    return ssh.connect(server.endpoint, server.login(client_key), timeout_s=60)


def is_clean(text: str) -> bool:
    return not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)


# -- amounts ------------------------------------------------------------------------------------------------


@contextmanager
def peak_growth_mib() -> Iterator[list[float]]:
    """How much the resident memory of this process grew at most meanwhile (proc(5), clear_refs and VmHWM)."""

    def memory(key: str) -> float:
        return int(re.findall(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) / 1024

    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    growth: list[float] = []
    yield growth
    growth.append(memory("VmHWM") - before)


@pytest.mark.minutes
@pytest.mark.timeout(900)
def test_a_line_of_a_gibibyte_is_cut_and_costs_little_memory(sshd: Any) -> None:
    channel = ssh.connect(sshd.endpoint, sshd.login, timeout_s=60)

    with peak_growth_mib() as growth:
        result = channel.run(("head", "-c", str(GIB), "/dev/zero"), timeout_s=600)

    assert (result.status, len(result.stdout), result.truncated) == (0, 4 << 20, True)
    assert growth[0] < 64, growth
    assert channel.run(("echo", "after")).out == "after"
    channel.close()


@pytest.mark.minutes
@pytest.mark.timeout(900)
def test_a_gibibyte_as_a_file_or_a_stream_costs_little_memory(sshd: Any, tmp_path: Path) -> None:
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(GIB)
    channel = ssh.connect(sshd.endpoint, sshd.login, timeout_s=60)

    with peak_growth_mib() as growth:
        with pytest.raises(GuestCommandFailed, match="is larger than 16777216 bytes"):
            channel.read(PurePosixPath(big))
        streamed = sum(map(len, channel.stream(("cat", str(big)), timeout_s=600, limit_bytes=GIB // 8)))

    assert streamed == GIB // 8
    assert growth[0] < 96, growth
    channel.close()


def test_an_endless_output_runs_into_the_limit_and_the_next_command_is_well(sshd: Any) -> None:
    channel = ssh.connect(sshd.endpoint, sshd.login, timeout_s=60)

    with pytest.raises(CommandTimedOut) as caught:
        channel.run(("yes",), timeout_s=2)

    assert caught.value.what.startswith("'yes' did not end within 2 s; its output so far: '...y\\ny\\n")
    assert len(caught.value.what) < 1000
    assert channel.run(("echo", "after")).out == "after"


# -- contents -----------------------------------------------------------------------------------------------


def test_every_byte_arrives_as_it_was_sent(sshd: Any) -> None:
    channel = ssh.connect(sshd.endpoint, sshd.login, timeout_s=60)
    octal = "".join(f"\\{byte:03o}" for byte in NASTY)

    result = channel.run(("printf", octal))

    assert result.stdout == NASTY
    assert "\ufffd" in result.out  # as text it is decoded with replacement, and raises nothing


@pytest.mark.parametrize("stream", ["", ">&2"])
def test_messages_show_hostile_output_without_a_control_character(sshd: Any, stream: str) -> None:
    channel = ssh.connect(sshd.endpoint, sshd.login, timeout_s=60)
    octal = "".join(f"\\{byte:03o}" for byte in NASTY)

    channel.run(("true",))

    with pytest.raises(CommandTimedOut) as late:
        channel.run(("sh", "-c", f"printf '{octal}' {stream}; sleep 30"), timeout_s=5)
    with pytest.raises(GuestCommandFailed) as failed:
        channel.read(PurePosixPath("/no/\x1b[31m/file"))

    assert is_clean(str(late.value))
    assert "\\x1b[2J" in str(late.value)
    assert is_clean(str(failed.value))


# -- a shell that lies --------------------------------------------------------------------------------------


def test_a_marker_of_an_earlier_command_is_only_output(lying: Any, client_key: Path) -> None:
    def replays(liar: Any) -> None:
        first = liar.next_command()
        liar.end(first, 0)
        second = liar.next_command()
        liar.say(f"{first} 0\n{first} 1\n".encode())
        liar.say_error(f"{first} 0\n".encode())
        liar.end(second, 7, out=b"the real answer\n")

    channel = opened(lying(replays), client_key)

    assert channel.run(("first",)).status == 0
    result = channel.run(("second",))
    assert result.status == 7
    assert result.stdout.endswith(b" 1\nthe real answer\n")


def test_markers_are_never_used_twice(lying: Any, client_key: Path) -> None:
    seen: list[str] = []

    def notes(liar: Any) -> None:
        for _ in range(50):
            marker = liar.next_command()
            seen.append(marker)
            liar.end(marker, 0)

    channel = opened(lying(notes), client_key)
    for _ in range(50):
        channel.run(("true",))

    assert len(set(seen)) == 50
    assert all(re.fullmatch("[0-9a-f]{24}", marker) for marker in seen)


@pytest.mark.parametrize("server", ["sshd", "dropbear"])
def test_no_process_of_the_guest_has_the_marker_in_its_command_line_or_environment(
    request: pytest.FixtureRequest, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def noted() -> str:
        made.append(secrets.token_hex(12))
        return made[-1]

    monkeypatch.setattr(_shell, "new_marker", noted)
    found = request.getfixturevalue(server)
    channel = ssh.connect(found.endpoint, found.login, timeout_s=60)
    channel.run(("true",))

    seen = channel.run(("sh", "-c", "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null")).stdout

    assert len(made) == 3  # the shell's greeting and two commands
    assert b"sh" in seen
    assert not any(marker.encode() in seen for marker in made)


def test_what_follows_an_end_is_not_in_the_next_answer(lying: Any, client_key: Path) -> None:
    said_more = threading.Event()

    def goes_on(liar: Any) -> None:
        marker = liar.next_command()
        liar.end(marker, 0, out=b"one\n")
        liar.say(b"forged answer of the next command\n" + f"{marker} 0\n".encode())
        said_more.set()
        liar.end(liar.next_command(), 0, out=b"two\n")

    channel = opened(lying(goes_on), client_key)

    assert channel.run(("one",)).stdout == b"one\n"
    assert said_more.wait(60)
    # The last of it may still be on its way, and then it can only stand before the true answer.
    assert channel.run(("two",)).stdout.endswith(b"two\n")


@pytest.mark.parametrize("status", ["256", "4294967295", "9999999999"])
def test_a_status_that_no_command_can_have_is_no_result(lying: Any, client_key: Path, status: str) -> None:
    channel = opened(lying(lambda liar: liar.end(liar.next_command(), status)), client_key)

    with pytest.raises(GuestCommandFailed) as caught:
        channel.run(("uname",))

    assert caught.value.what == "'uname' ended the shell that ran it, so it left no status; its output: ''"


@pytest.mark.parametrize("status", ["-1", "0x0", "", "1 2", "00000000000", "\x1b[1m0"])
def test_a_status_that_is_no_number_is_no_result(lying: Any, client_key: Path, status: str) -> None:
    channel = opened(lying(lambda liar: liar.end(liar.next_command(), status)), client_key)

    with pytest.raises((GuestCommandFailed, CommandTimedOut)) as caught:
        channel.run(("uname",), timeout_s=2)

    assert is_clean(str(caught.value))


def test_an_end_on_one_stream_alone_is_no_end(lying: Any, client_key: Path) -> None:
    def half(liar: Any) -> None:
        marker = liar.next_command()
        liar.say(f"done\n{marker} 0\n".encode())
        liar.wait()

    channel = opened(lying(half), client_key)

    with pytest.raises(CommandTimedOut) as caught:
        channel.run(("make",), timeout_s=3)

    assert caught.value.what == "'make' did not end within 3 s; its output so far: 'done'"


def test_ten_thousand_prompts_are_output_and_nothing_is_answered(lying: Any, client_key: Path) -> None:
    answered: list[bytes] = []

    def prompts(liar: Any) -> None:
        liar.say(b"login: Password: \x1b[1m[sudo] password for root: " * 10_000)
        marker = liar.next_command()
        liar.say(b"Are you sure you want to continue connecting (yes/no)? " * 10_000)
        liar.end(marker, 3, out=b"\n")
        answered.append(liar.rest())

    channel = opened(lying(prompts), client_key)
    result = channel.run(("true",), timeout_s=60)

    assert result.status == 3
    assert result.stdout.count(b"(yes/no)?") == 10_000
    channel.close()
    assert answered in ([], [b""])


@given(
    before=st.binary(max_size=200),
    number=st.integers(0, 255),
    after=st.binary(max_size=50),
    cuts=st.lists(st.integers(0, 300), max_size=8),
)
def test_a_marker_is_found_however_its_bytes_are_cut(before: bytes, number: int, after: bytes, cuts: list[int]) -> None:
    marker = "0123456789abcdef01234567"
    if marker.encode() in before:
        return
    whole = before + f"{marker} {number}\n".encode() + after
    edges = sorted({0, len(whole), *(cut for cut in cuts if cut <= len(whole))})
    rest = Bounded(1000)
    found = Marked(marker, Bounded(1000), after=rest)

    for start, end in pairwise(edges):
        found.feed(whole[start:end])

    assert (found.number, found.before.value(), rest.value()) == (number, before, after)


@given(pieces=st.lists(st.binary(max_size=40), max_size=20))
def test_no_bytes_without_the_marker_end_a_command(pieces: list[bytes]) -> None:
    found = Marked("0123456789abcdef01234567", Bounded(64))

    for piece in pieces:
        found.feed(piece)

    assert found.number is None
    assert len(found.so_far()) <= 64 + 24


@given(tail=st.binary(min_size=13, max_size=60))
def test_nothing_but_a_number_may_follow_a_marker(tail: bytes) -> None:
    found = Marked("0123456789abcdef01234567", Bounded(64))
    is_number = re.match(rb" \d{1,10}\n", tail) is not None

    try:
        found.feed(b"0123456789abcdef01234567" + tail)
    except ShellLost:
        assert not is_number
    else:
        assert is_number


# -- a server that lies -------------------------------------------------------------------------------------


def test_an_endless_banner_before_the_greeting_is_given_up(plain: Any, client_key: Path) -> None:
    def flood(sock: Any) -> None:
        while True:
            sock.sendall(b"\x1b[2JWelcome!\r\n" * 1000)

    endpoint = plain(flood)
    login = SshLogin("root", client_key, Identity.make("x").host_key_public)

    with pytest.raises(GuestUnreachable) as caught:
        ssh.connect(endpoint, login, timeout_s=60)

    assert caught.value.what == f"no SSH server greets on 127.0.0.1:{endpoint.port}: something else answered"


def test_endless_banners_during_the_login_end_with_an_error(hostile: Any, client_key: Path) -> None:
    def floods(transport: paramiko.Transport) -> None:
        banner = paramiko.Message()
        banner.add_byte(b"\x35")  # SSH_MSG_USERAUTH_BANNER (RFC 4252, 5.4)
        banner.add_string("\x1b[2J" + "x" * 8000)
        banner.add_string("")
        while transport.is_active():
            transport._send_message(banner)

    server = hostile(lambda channel, command: None, before_login=floods)

    with pytest.raises(GuestUnreachable) as caught:
        ssh.connect(server.endpoint, server.login(client_key), timeout_s=20)

    assert is_clean(str(caught.value))


def test_a_server_that_wants_a_password_is_told_none(hostile: Any, client_key: Path) -> None:
    server = hostile(lambda channel, command: None, lets_in=False)

    with pytest.raises(GuestLoginRefused, match="refuses the lab's key"):
        ssh.connect(server.endpoint, server.login(client_key), timeout_s=60)


def test_a_host_key_that_changes_at_a_reconnect_is_told_at_once(lying: Any, client_key: Path) -> None:
    server = lying(lambda liar: liar.wait())
    channel = opened(server, client_key)
    expected = server.identity.host_key_public.split()[1][-12:]
    shown = server.change_identity().split()[1][-12:]

    with pytest.raises(HostKeyChanged) as caught:
        channel.reconnect(60)

    assert caught.value.what == (
        f"the guest shows the SSH host key ssh-ed25519 {shown}, not the one that the lab gave it, {expected}"
    )
