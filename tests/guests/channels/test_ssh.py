"""SSH against servers that refuse, lie and stop answering before a command runs."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from lab.contracts import Endpoint, SshLogin
from lab.errors import (
    ConfigurationError,
    GuestLoginRefused,
    GuestUnreachable,
    HostKeyChanged,
)
from lab.guests.channels import ssh
from lab.guests.identity import Identity

# -- the port ---------------------------------------------------------------------------------------------


def _wait_for_hangup(sock: socket.socket) -> None:
    while sock.recv(4096):
        pass


def test_a_server_that_greets_is_told(sshd: Any) -> None:
    assert ssh.probe(sshd.endpoint, timeout_s=60) is ssh.Answer.BANNER


def test_a_port_without_listener_is_unreachable_behind_a_forward() -> None:
    with socket.socket() as taken:  # by somebody who does not listen, so that nobody else gets it
        taken.bind(("127.0.0.1", 0))
        endpoint = Endpoint("127.0.0.1", taken.getsockname()[1])

        assert ssh.probe(endpoint, timeout_s=60) is ssh.Answer.UNREACHABLE


def test_a_connection_closed_at_once_is_closed(plain: Any) -> None:
    assert ssh.probe(plain(lambda sock: None), timeout_s=60) is ssh.Answer.CLOSED


def test_a_connection_reset_at_once_is_closed(plain: Any) -> None:
    def reset(sock: socket.socket) -> None:
        # A linger time of zero makes close send a reset (socket(7)).
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    assert ssh.probe(plain(reset), timeout_s=60) is ssh.Answer.CLOSED


def test_a_server_that_says_nothing_is_silent(plain: Any) -> None:
    assert ssh.probe(plain(_wait_for_hangup), timeout_s=0.3) is ssh.Answer.SILENT


def test_a_server_of_another_protocol_is_noise(plain: Any) -> None:
    def web(sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    assert ssh.probe(plain(web), timeout_s=60) is ssh.Answer.NOISE


def test_an_endless_greeting_is_noise(plain: Any) -> None:
    def flood(sock: socket.socket) -> None:
        while True:
            sock.sendall(b"x" * 65536)

    assert ssh.probe(plain(flood), timeout_s=60) is ssh.Answer.NOISE


def test_a_greeting_in_pieces_is_a_greeting(plain: Any) -> None:
    def slow(sock: socket.socket) -> None:
        for piece in (b"welcome\r\nSS", b"H-2.0-slow", b"\r\n"):
            sock.sendall(piece)
            threading.Event().wait(0.05)
        _wait_for_hangup(sock)

    assert ssh.probe(plain(slow), timeout_s=60) is ssh.Answer.BANNER


def test_a_half_greeting_ends_with_the_time(plain: Any) -> None:
    def half(sock: socket.socket) -> None:
        sock.sendall(b"SSH-2.0-ha")
        _wait_for_hangup(sock)

    # Long enough for the half to come; all of it passes.
    assert ssh.probe(plain(half), timeout_s=3) is ssh.Answer.NOISE


# -- connecting -------------------------------------------------------------------------------------------


def test_a_wrong_host_key_is_not_accepted(sshd: Any) -> None:
    expected = Identity.make("other").host_key_public
    login = SshLogin(sshd.login.user, sshd.login.private_key, expected)

    with pytest.raises(HostKeyChanged) as caught:
        ssh.connect(sshd.endpoint, login, timeout_s=60)

    shown = sshd.login.host_key.split()[1][-12:]
    assert caught.value.what == (
        f"the guest shows the SSH host key ssh-ed25519 {shown}, not the one that the lab gave it, {expected[-12:]}"
    )


def test_a_comment_behind_the_expected_key_does_not_matter(sshd: Any) -> None:
    login = SshLogin(sshd.login.user, sshd.login.private_key, sshd.login.host_key + " root@template")

    ssh.connect(sshd.endpoint, login, timeout_s=60).close()


def test_a_key_that_the_server_does_not_know_is_refused(sshd: Any, tmp_path: Path) -> None:
    key = tmp_path / "other"
    key.write_text(Identity.make("other").host_key_private)

    with pytest.raises(GuestLoginRefused) as caught:
        ssh.connect(sshd.endpoint, SshLogin(sshd.login.user, key, sshd.login.host_key), timeout_s=60)

    assert caught.value.what == f"SSH on 127.0.0.1:{sshd.endpoint.port} refuses the lab's key"


def test_a_missing_private_key_is_a_matter_of_configuration(sshd: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be used as SSH key"):
        ssh.connect(sshd.endpoint, SshLogin("root", tmp_path / "none", sshd.login.host_key), timeout_s=60)


def test_a_server_that_never_finishes_the_key_exchange_is_given_up(plain: Any, client_key: Path) -> None:
    def stalls(sock: socket.socket) -> None:
        sock.sendall(b"SSH-2.0-stalls\r\n")
        _wait_for_hangup(sock)

    endpoint = plain(stalls)
    with pytest.raises(GuestUnreachable, match=f"127.0.0.1:{endpoint.port} did not finish its greeting within 3 s"):
        ssh.connect(endpoint, SshLogin("root", client_key, "ssh-ed25519 AAAA"), timeout_s=3)


def test_a_server_that_announces_a_gigantic_packet_is_given_up(plain: Any, client_key: Path) -> None:
    def flood(sock: socket.socket) -> None:
        sock.sendall(b"SSH-2.0-flood\r\n" + (0xFFFFFFF4).to_bytes(4, "big"))
        while True:
            sock.sendall(b"x" * (1 << 20))

    with pytest.raises(GuestUnreachable, match="broke off"):
        ssh.connect(plain(flood), SshLogin("root", client_key, "ssh-ed25519 AAAA"), timeout_s=60)


def test_a_server_that_hangs_up_during_the_key_exchange_is_unreachable(plain: Any, client_key: Path) -> None:
    endpoint = plain(lambda sock: sock.sendall(b"SSH-2.0-gone\r\n"))

    with pytest.raises(GuestUnreachable, match=f"SSH on 127.0.0.1:{endpoint.port} broke off"):
        ssh.connect(endpoint, SshLogin("root", client_key, "ssh-ed25519 AAAA"), timeout_s=60)
