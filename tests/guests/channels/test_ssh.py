"""SSH against servers that refuse, lie, flood, stop answering and go away."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import paramiko
import pytest

from lab import waiting
from lab.contracts import Endpoint, SshLogin
from lab.errors import (
    CommandTimedOut,
    ConfigurationError,
    GuestCommandFailed,
    GuestLoginRefused,
    GuestUnreachable,
    HostKeyChanged,
)
from lab.guests.channels import _connection, _pump, ssh
from lab.guests.identity import Identity

Behaviour = Callable[[paramiko.Channel, bytes], None]


class HostileServer:
    """An SSH server made of paramiko whose `behaviour` gets every command, and whose forms can be bent."""

    def __init__(self, behaviour: Behaviour, *, lets_in: bool = True, answers_exec: bool = True) -> None:
        self.identity = Identity.make("hostile")
        self.transports: list[paramiko.Transport] = []
        self._behaviour = behaviour
        self._lets_in = lets_in
        self._answers_exec = answers_exec
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._key = _key_of(self.identity)
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint("127.0.0.1", self._listener.getsockname()[1])

    def login(self, client_key: Path) -> SshLogin:
        return SshLogin("root", client_key, self.identity.host_key_public)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # a thread that accepts would keep it listening
        self._listener.close()
        for transport in self.transports:
            transport.close()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            transport = paramiko.Transport(sock)
            transport.set_log_channel("lab.tests.hostile")
            transport.add_server_key(self._key)
            self.transports.append(transport)
            transport.start_server(threading.Event(), _Rules(self))

    def act(self, channel: paramiko.Channel, command: bytes) -> None:
        try:
            self._behaviour(channel, command)
        except (OSError, EOFError):
            return  # the client has hung up on us, as it should

    def rules(self) -> tuple[bool, bool]:
        return self._lets_in, self._answers_exec


class _Rules(paramiko.ServerInterface):
    def __init__(self, server: HostileServer) -> None:
        self._server = server
        self._never = threading.Event()

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return paramiko.AUTH_SUCCESSFUL if self._server.rules()[0] else paramiko.AUTH_FAILED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        if not self._server.rules()[1]:
            self._never.wait(60)
        threading.Thread(target=self._server.act, args=(channel, command), daemon=True).start()
        return True


def _key_of(identity: Identity) -> paramiko.PKey:
    import io

    return paramiko.Ed25519Key.from_private_key(io.StringIO(identity.host_key_private))


def _silent(channel: paramiko.Channel, command: bytes) -> None:
    threading.Event().wait(60)


@pytest.fixture
def hostile() -> Iterator[Callable[..., HostileServer]]:
    servers: list[HostileServer] = []

    def start(behaviour: Behaviour, **rules: Any) -> HostileServer:
        servers.append(HostileServer(behaviour, **rules))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def plain() -> Iterator[Callable[[Callable[[socket.socket], None]], Endpoint]]:
    """A TCP server that does to its first connection what it is told."""
    listeners = []

    def start(act: Callable[[socket.socket], None]) -> Endpoint:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def serve() -> None:
            try:
                sock, _ = listener.accept()
                with sock:
                    act(sock)
            except OSError:
                return

        threading.Thread(target=serve, daemon=True).start()
        return Endpoint("127.0.0.1", listener.getsockname()[1])

    yield start
    for listener in listeners:
        listener.close()


# -- the port ---------------------------------------------------------------------------------------------


def _wait_for_hangup(sock: socket.socket) -> None:
    while sock.recv(4096):
        pass


def test_a_server_that_greets_is_told(sshd: Any) -> None:
    assert ssh.probe(sshd.endpoint, timeout_s=30) is ssh.Answer.BANNER


def test_a_port_without_listener_is_unreachable_behind_a_forward() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = Endpoint("127.0.0.1", listener.getsockname()[1])

    assert ssh.probe(endpoint, timeout_s=30) is ssh.Answer.UNREACHABLE


def test_a_connection_closed_at_once_is_closed(plain: Any) -> None:
    assert ssh.probe(plain(lambda sock: None), timeout_s=30) is ssh.Answer.CLOSED


def test_a_connection_reset_at_once_is_closed(plain: Any) -> None:
    def reset(sock: socket.socket) -> None:
        # A linger time of zero makes close send a reset (socket(7)).
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    assert ssh.probe(plain(reset), timeout_s=30) is ssh.Answer.CLOSED


def test_a_server_that_says_nothing_is_silent(plain: Any) -> None:
    assert ssh.probe(plain(_wait_for_hangup), timeout_s=0.3) is ssh.Answer.SILENT


def test_a_server_of_another_protocol_is_noise(plain: Any) -> None:
    def web(sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    assert ssh.probe(plain(web), timeout_s=30) is ssh.Answer.NOISE


def test_an_endless_greeting_is_noise(plain: Any) -> None:
    def flood(sock: socket.socket) -> None:
        while True:
            sock.sendall(b"x" * 65536)

    assert ssh.probe(plain(flood), timeout_s=30) is ssh.Answer.NOISE


def test_a_greeting_in_pieces_is_a_greeting(plain: Any) -> None:
    def slow(sock: socket.socket) -> None:
        for piece in (b"welcome\r\nSS", b"H-2.0-slow", b"\r\n"):
            sock.sendall(piece)
            threading.Event().wait(0.05)
        _wait_for_hangup(sock)

    assert ssh.probe(plain(slow), timeout_s=30) is ssh.Answer.BANNER


def test_a_half_greeting_ends_with_the_time(plain: Any) -> None:
    def half(sock: socket.socket) -> None:
        sock.sendall(b"SSH-2.0-ha")
        _wait_for_hangup(sock)

    assert ssh.probe(plain(half), timeout_s=0.3) is ssh.Answer.NOISE


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
    with pytest.raises(GuestUnreachable, match=f"127.0.0.1:{endpoint.port} did not finish its greeting within 1 s"):
        ssh.connect(endpoint, SshLogin("root", client_key, "ssh-ed25519 AAAA"), timeout_s=1)


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
        ssh.connect(endpoint, SshLogin("root", client_key, "ssh-ed25519 AAAA"), timeout_s=30)


# -- commands -----------------------------------------------------------------------------------------------


def test_a_server_that_never_starts_the_command_is_given_up(hostile: Any, client_key: Path) -> None:
    server = hostile(_silent, answers_exec=False)
    channel = ssh.connect(server.endpoint, server.login(client_key), timeout_s=60)

    with pytest.raises(GuestUnreachable, match="the guest's SSH server starts no command"):
        channel.run(("true",), timeout_s=1)


def test_a_server_that_never_answers_a_command_runs_into_the_limit(hostile: Any, client_key: Path) -> None:
    server = hostile(_silent)
    channel = ssh.connect(server.endpoint, server.login(client_key), timeout_s=60)

    with pytest.raises(CommandTimedOut) as caught:
        channel.run(("uname", "-a"), timeout_s=1)

    assert caught.value.what == "'uname -a' did not end within 1 s; its output so far: ''"


def test_a_server_that_closes_in_the_middle_of_an_answer_is_unreachable(hostile: Any, client_key: Path) -> None:
    def hangs_up(channel: paramiko.Channel, command: bytes) -> None:
        channel.recv(65536)
        channel.sendall(b"half an ans")
        channel.get_transport().close()

    server = hostile(hangs_up)
    channel = ssh.connect(server.endpoint, server.login(client_key), timeout_s=60)

    with pytest.raises(GuestUnreachable, match="the connection to the guest was lost during 'uname'"):
        channel.run(("uname",), timeout_s=60)


def test_a_shell_that_lies_about_markers_gives_no_result(hostile: Any, client_key: Path) -> None:
    def lies(channel: paramiko.Channel, command: bytes) -> None:
        text = channel.recv(65536).decode()
        hello = text.split("_lab_end ")[1].split()[0]
        channel.sendall(f"{hello} not a number at all\n".encode())
        _silent(channel, command)

    server = hostile(lies)
    channel = ssh.connect(server.endpoint, server.login(client_key), timeout_s=60)

    with pytest.raises(GuestCommandFailed) as caught:
        channel.run(("uname",), timeout_s=60)

    assert caught.value.what == "'uname' ended the shell that ran it, so it left no status; its output: ''"


def test_a_server_that_floods_an_idle_channel_is_cut_off(hostile: Any, client_key: Path) -> None:
    def floods(channel: paramiko.Channel, command: bytes) -> None:
        # An honest server waits for room in the window; this one does not.
        channel.out_window_size = 1 << 40
        while True:
            channel.sendall(b"x" * 32768)

    server = hostile(floods)
    channel = ssh.connect(server.endpoint, server.login(client_key), timeout_s=60)
    stream = channel.stream(("true",), timeout_s=60)
    next(stream)

    waiting.until(lambda: not channel.is_connected(), what="the flooding server to be cut off", timeout_s=120)

    with pytest.raises(GuestUnreachable):
        channel.run(("true",))


def test_a_flood_on_the_other_stream_does_not_hide_the_time(hostile: Any, client_key: Path) -> None:
    def floods(channel: paramiko.Channel, command: bytes) -> None:
        while True:
            channel.sendall_stderr(b"x" * 32768)

    server = hostile(floods)
    channel = ssh.connect(server.endpoint, server.login(client_key), timeout_s=60)

    with pytest.raises(CommandTimedOut) as caught:
        channel.run(("true",), timeout_s=1)

    assert len(str(caught.value)) < 2000


def test_a_guest_that_stands_still_is_noticed_before_the_limit(
    sshd: Any, client_key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids: list[int] = []
    monkeypatch.setattr(_connection, "Pulse", lambda t, m: _pump.Pulse(t, m, patience_s=3.0))
    channel = ssh.connect(sshd.endpoint, sshd.login, timeout_s=60)
    # The server's half of this connection: the parent of the parent of a command.
    shell = channel.run(("sh", "-c", "echo $PPID")).out
    pids.append(int(channel.run(("sed", "-n", "s/^PPid:[[:space:]]*//p", f"/proc/{shell}/status")).out))
    os.kill(pids[0], signal.SIGSTOP)
    try:
        with pytest.raises(GuestUnreachable, match="the guest was lost during 'sleep 600': the guest did not answer"):
            channel.run(("sleep", "600"), timeout_s=120)
    finally:
        os.kill(pids[0], signal.SIGCONT)


def test_a_long_silent_command_is_no_dead_guest(sshd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_connection, "Pulse", lambda t, m: _pump.Pulse(t, m, patience_s=1.5))
    channel = ssh.connect(sshd.endpoint, sshd.login, timeout_s=60)

    assert channel.run(("sleep", "4"), timeout_s=60).status == 0


def test_a_command_after_the_connection_broke_is_unreachable(sshd: Any) -> None:
    channel = ssh.connect(sshd.endpoint, sshd.login, timeout_s=60)
    channel.close()

    with pytest.raises(GuestUnreachable):
        channel.run(("true",))


def test_a_broken_connection_can_be_opened_anew(sshd: Any) -> None:
    channel = ssh.connect(sshd.endpoint, sshd.login, timeout_s=60)
    channel.run(("true",))
    channel.close()

    channel.reconnect(60)

    assert channel.run(("echo", "back")).out == "back"


def test_a_guest_that_does_not_come_back_is_told(client_key: Path) -> None:
    server = HostileServer(_silent)
    channel = ssh.connect(server.endpoint, server.login(client_key), timeout_s=60)
    port = server.endpoint.port
    server.close()

    with pytest.raises(GuestUnreachable) as caught:
        channel.reconnect(1)

    assert caught.value.what == (
        f"SSH did not come back within 1 s; at last: no connection to 127.0.0.1:{port}: [Errno 111] Connection refused"
    )


def test_a_renewed_host_key_is_pinned_by_a_new_login(sshd: Any, dropbear: Any) -> None:
    channel = ssh.connect(sshd.endpoint, sshd.login, timeout_s=60)

    with pytest.raises(HostKeyChanged):
        channel.with_login(dropbear.login, timeout_s=30)


def test_reconnecting_may_go_to_another_place(sshd: Any, dropbear: Any) -> None:
    channel = ssh.connect(sshd.endpoint, sshd.login, timeout_s=60)
    channel.close()
    moved = ssh.SshChannel(channel._connection, sshd.endpoint, dropbear.login)

    moved.reconnect(60, endpoint=dropbear.endpoint)

    assert moved.endpoint == dropbear.endpoint
    assert moved.run(("true",)).status == 0
    moved.close()


def test_output_of_an_earlier_background_process_is_not_in_a_later_answer(sshd: Any) -> None:
    channel = ssh.connect(sshd.endpoint, sshd.login, timeout_s=60)
    path = f"/tmp/lab-late-{time.time_ns()}"
    channel.run(("sh", "-c", f"(sleep 0.3; echo late; touch {path}) &"))
    waiting.until(Path(path).exists, what="the background process", timeout_s=30)

    assert channel.run(("echo", "now")).stdout == b"now\n"
    Path(path).unlink()


def test_two_threads_share_a_channel(sshd: Any) -> None:
    channel = ssh.connect(sshd.endpoint, sshd.login, timeout_s=60)
    got: list[bytes] = []

    def ask(number: int) -> None:
        got.append(channel.run(("sh", "-c", f"sleep 0.2; echo {number}"), timeout_s=60).stdout)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(got) == [b"0\n", b"1\n", b"2\n", b"3\n"]


@pytest.mark.parametrize("argv", [(), ("a\0b",)])
def test_words_that_no_shell_can_carry_are_refused(sshd: Any, argv: tuple[str, ...]) -> None:
    channel = ssh.connect(sshd.endpoint, sshd.login, timeout_s=60)

    with pytest.raises(ValueError):
        channel.run(argv)

    assert channel.run(("echo", "after")).out == "after"


def test_a_cut_input_leaves_no_half_file(dropbear: Any) -> None:
    channel = ssh.connect(dropbear.endpoint, dropbear.login, timeout_s=60)
    path = f"/tmp/lab-cut-{time.time_ns()}"
    # What the guest runs for `write`, with less input than announced: the connection broke on the way.
    result = channel.run(("/bin/sh", "-c", ssh._WRITE, "sh", path, f"{path}.new", "644", "10"), stdin=b"short")

    assert result.status == 1
    assert result.err == "the content did not arrive whole"
    assert channel.run(("ls", "/tmp")).out == ""


def test_a_written_file_has_no_moment_with_a_wider_mode(sshd: Any, tmp_path: Path) -> None:
    channel = ssh.connect(sshd.endpoint, sshd.login, timeout_s=60)

    channel.write(PurePosixPath(tmp_path / "secret"), b"x", mode=0o600)

    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
