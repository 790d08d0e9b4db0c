"""One SSH connection: the only file that imports paramiko."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from lab import waiting
from lab.contracts import Endpoint, SshLogin
from lab.errors import ConfigurationError, GuestLoginRefused, GuestUnreachable, HostKeyChanged, WaitedTooLong
from lab.ssh._dial import Answer, MeteredSocket, await_greeting, dial
from lab.ssh._order import ChannelOrder
from lab.ssh._pump import Pulse, Pump, is_live
from lab.ssh._tunnel import Tunnel

if TYPE_CHECKING:
    import paramiko
    from paramiko.packet import Packetizer

# Curve25519 first: the post-quantum exchanges that servers offer today cost an emulated guest a second.
_KEY_EXCHANGES = ("curve25519-sha256@libssh.org", "ecdh-sha2-nistp256", "diffie-hellman-group14-sha256")
_CIPHERS = ("aes128-ctr", "aes256-ctr")
_LOG = "lab.guests.paramiko"


class Connection:
    """An authenticated connection."""

    def __init__(self, transport: paramiko.Transport, pulse: Pulse) -> None:
        self._transport = transport
        self._pulse = pulse

    @staticmethod
    def open(endpoint: Endpoint, login: SshLogin, *, timeout_s: float, greeting_s: float = 3600.0) -> Connection:
        """Connect, wait at most `greeting_s` for the server to greet, compare the host key, log in.

        Raises `GuestUnreachable`, `HostKeyChanged`, `GuestLoginRefused`.
        """
        deadline = time.monotonic() + timeout_s
        greeted_by = min(deadline, time.monotonic() + greeting_s)
        where = f"{endpoint.host}:{endpoint.port}"
        try:
            sock = dial(endpoint, greeted_by)
        except OSError as reason:
            raise GuestUnreachable(f"no connection to {where}: {reason}") from reason
        try:
            answer = await_greeting(sock, greeted_by)
            if answer is not Answer.BANNER:
                raise GuestUnreachable(f"no SSH server greets on {where}: {_MEANING[answer]}")
            # paramiko's own limits count anew at each step and some of its waits have none.
            with _limit(lambda: _cut(sock), deadline) as ran_out, _refusals(where, timeout_s, ran_out):
                return _logged_in(sock, login, deadline)
        except BaseException:
            sock.close()
            raise

    def is_active(self) -> bool:
        return is_live(self._transport)

    def breaks(self) -> bool:
        """Whether the connection is closed, or closes right now."""
        try:
            # A channel that ended because the guest goes down is seen a moment before the connection's end.
            waiting.until(lambda: not is_live(self._transport), what="the connection to close", timeout_s=0.3)
        except WaitedTooLong:
            return False
        return True

    def answers(self, within_s: float) -> bool:
        """Whether the SSH server gives a sign of life within that time."""
        return self._pulse.answers(within_s)

    def exec(self, command: bytes, deadline: float) -> Pump:
        """Start a command on a channel of its own. Raises `GuestUnreachable`."""
        import paramiko

        left_s = max(1.0, deadline - time.monotonic())
        try:
            # exec_command waits for the server's word without a limit.
            with _limit(self.close, time.monotonic() + left_s + 1.0):
                channel = self._transport.open_session(timeout=left_s)
                channel.exec_command(command)
        except (paramiko.SSHException, OSError, EOFError) as reason:
            raise GuestUnreachable(f"the guest's SSH server starts no command: {reason or 'closed'!s:.200}") from reason
        return Pump(channel, self._pulse)

    def tunnel(self, far: Endpoint, timeout_s: float) -> Tunnel:
        """A TCP connection from the other end to `far`, on a channel of its own.

        Raises `ConnectionError` when the other end cannot connect there, `GuestUnreachable` when it is gone.
        """
        import paramiko

        try:
            channel = self._transport.open_channel(
                "direct-tcpip", (far.host, far.port), ("127.0.0.1", 0), timeout=timeout_s
            )
        except paramiko.ChannelException as reason:
            raise ConnectionError(f"{far.host}:{far.port} cannot be reached from there: {reason!s:.200}") from reason
        except (paramiko.SSHException, OSError, EOFError) as reason:
            raise GuestUnreachable(f"the SSH server opens no tunnel: {reason or 'closed'!s:.200}") from reason
        return Tunnel(channel, self._pulse)

    def close(self) -> None:
        self._transport.close()


_MEANING = {
    Answer.CLOSED: "the connection was closed at once",
    Answer.SILENT: "nothing came",
    Answer.NOISE: "something else answered",
}


def _logged_in(sock: MeteredSocket, login: SshLogin, deadline: float) -> Connection:
    import paramiko

    key = _private_key(login)
    transport = paramiko.Transport(sock, packetizer_class=_ordered())
    transport.set_log_channel(_silenced_log())
    transport.daemon = True
    options = transport.get_security_options()
    options.kex = _KEY_EXCHANGES
    options.ciphers = _CIPHERS
    options.key_types = ("ssh-ed25519",)
    left_s = max(0.1, deadline - time.monotonic())
    transport.banner_timeout = transport.handshake_timeout = transport.auth_timeout = left_s
    try:
        transport.start_client(timeout=left_s)
        shown = transport.get_remote_server_key()
        if f"{shown.get_name()} {shown.get_base64()}".split() != login.host_key.split()[:2]:
            raise HostKeyChanged(
                f"the guest shows the SSH host key {shown.get_name()} {shown.get_base64()[-12:]}, "
                f"not the one that the lab gave it, {login.host_key.split()[1][-12:]}",
                hint="another machine answers there, or the seed was not applied: look at the console log",
            )
        transport.auth_publickey(login.user, key)
    except BaseException:
        transport.close()
        raise
    return Connection(transport, Pulse(transport, sock))


def _ordered() -> type[Packetizer]:
    from paramiko.packet import Packetizer

    class Ordered(Packetizer):
        """Sends nothing for a channel after its CLOSE."""

        def __init__(self, sock: socket.socket) -> None:
            super().__init__(sock)
            self._order = ChannelOrder()

        def send_message(self, data: paramiko.Message) -> None:
            if self._order.admits(data.asbytes()):
                super().send_message(data)

        def read_message(self) -> tuple[int, paramiko.Message]:
            kind, message = super().read_message()
            self._order.came(kind, message.asbytes())
            return kind, message

    return Ordered


def _private_key(login: SshLogin) -> paramiko.PKey:
    import paramiko

    try:
        return paramiko.Ed25519Key.from_private_key_file(str(login.private_key))
    except (paramiko.SSHException, OSError, ValueError) as reason:
        raise ConfigurationError(
            f"{login.private_key} cannot be used as SSH key: {reason}", hint="the lab makes it anew when it is deleted"
        ) from reason


@contextmanager
def _refusals(where: str, timeout_s: float, ran_out: threading.Event) -> Iterator[None]:
    """Turn what paramiko raises into the lab's errors."""
    import paramiko

    try:
        yield
    except paramiko.AuthenticationException as reason:
        # The same class tells that the connection went away meanwhile, as it does while a guest shuts down.
        if isinstance(reason, paramiko.BadAuthenticationType) or str(reason) == "Authentication failed.":
            raise GuestLoginRefused(
                f"SSH on {where} refuses the lab's key", hint="the seed was not applied, or the user has no shell"
            ) from reason
        if ran_out.is_set() or "timeout" in str(reason).lower():
            raise GuestUnreachable(f"SSH on {where} did not finish the login within {timeout_s:.0f} s") from reason
        raise GuestUnreachable(f"SSH on {where} broke off during the login") from reason
    except paramiko.ssh_exception.IncompatiblePeer as reason:
        if "host key" in str(reason).lower():
            raise HostKeyChanged(
                f"SSH on {where} has no ed25519 host key, so it is not the one that the lab gave it"
            ) from reason
        raise GuestUnreachable(f"SSH on {where} speaks no common language: {reason!s:.200}") from reason
    except (paramiko.SSHException, OSError, EOFError, ValueError) as reason:
        if ran_out.is_set():
            raise GuestUnreachable(f"SSH on {where} did not finish its greeting within {timeout_s:.0f} s") from reason
        raise GuestUnreachable(f"SSH on {where} broke off: {reason or 'closed'!s:.200}") from reason


@contextmanager
def _limit(close: Callable[[], None], deadline: float) -> Iterator[threading.Event]:
    """Call `close` at the deadline unless the block has ended; the event tells that it happened."""
    ran_out = threading.Event()

    def end() -> None:
        ran_out.set()
        close()

    timer = threading.Timer(max(0.0, deadline - time.monotonic()), end)
    timer.daemon = True
    timer.start()
    try:
        yield ran_out
    finally:
        timer.cancel()


def _cut(sock: socket.socket) -> None:
    # Not closed: another thread reads from it, and its number could be given away meanwhile.
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _silenced_log() -> str:
    # paramiko logs texts of the peer and tracebacks, line by line; our errors say what matters.
    logging.getLogger(_LOG).setLevel(logging.CRITICAL + 1)
    return _LOG
