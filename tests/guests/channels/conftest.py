"""Servers that are no good, for the tests of channels."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest

from lab.contracts import Endpoint, SshLogin
from lab.guests.identity import Identity

_MARKER = re.compile(rb"_lab_end ([0-9a-f]{24}) (\$\$|\$\?)\n")

Behaviour = Callable[[paramiko.Channel, bytes], None]


class HostileServer:
    """An SSH server made of paramiko whose `behaviour` gets every command, and whose forms can be bent."""

    def __init__(
        self,
        behaviour: Behaviour,
        *,
        lets_in: bool = True,
        answers_exec: bool = True,
        before_login: Callable[[paramiko.Transport], None] = lambda transport: None,
    ) -> None:
        self.identity = Identity.make("hostile")
        self.transports: list[paramiko.Transport] = []
        self._behaviour = behaviour
        self._lets_in = lets_in
        self._answers_exec = answers_exec
        self.before_login = before_login
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._key = _key_of(self.identity)
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint("127.0.0.1", self._listener.getsockname()[1])

    def login(self, client_key: Path) -> SshLogin:
        return SshLogin("root", client_key, self.identity.host_key_public)

    def close(self) -> None:
        if self._listener.fileno() < 0:
            return
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

    def change_identity(self) -> str:
        """Become somebody else, and hang up; the public line of the new host key."""
        other = Identity.make("somebody-else")
        self._key = _key_of(other)
        for transport in self.transports:
            transport.close()
        return other.host_key_public

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
        self._server.before_login(self._server.transports[-1])
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


class Liar:
    """A shell that lies: it reads what the lab sends on one channel and answers whatever a test wants."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel
        self._read = b""

    def next_command(self) -> str:
        """Wait for a command; its marker. Answers the greeting truly, because it goes with the first command."""
        while True:
            match = _MARKER.search(self._read)
            if match is None:
                data = self._channel.recv(65536)
                if not data:
                    raise EOFError
                self._read += data
                continue
            self._read = self._read[match.end() :]
            marker = match[1].decode()
            if match[2] == b"$?":
                return marker
            self.end(marker, 4711)

    def end(self, marker: str, status: object, *, out: bytes = b"") -> None:
        """Say that a command has ended, as the lab's own function would."""
        self.say(out + f"{marker} {status}\n".encode())
        self.say_error(f"{marker} 0\n".encode())

    def say(self, data: bytes) -> None:
        self._channel.sendall(data)

    def say_error(self, data: bytes) -> None:
        self._channel.sendall_stderr(data)

    def rest(self) -> bytes:
        """What was sent and not asked for."""
        return self._read

    def wait(self) -> None:
        """Say nothing more."""
        threading.Event().wait(60)


@pytest.fixture
def lying(hostile: Callable[..., HostileServer]) -> Callable[[Callable[[Liar], None]], HostileServer]:
    """A server that does with every command what a script tells: each command gets a liar of its own."""
    return lambda script: hostile(lambda channel, command: script(Liar(channel)))


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
