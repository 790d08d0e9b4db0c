"""A channel over SSH: one connection with a pinned host key, one long-lived shell for plain commands, tunnels."""

from __future__ import annotations

import secrets
import shlex
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import PurePath

from lab import log as lab_log
from lab import waiting
from lab.contracts import CommandResult, Endpoint, SshLogin
from lab.errors import (
    CommandTimedOut,
    GuestCommandFailed,
    GuestError,
    GuestUnreachable,
    WaitedTooLong,
)
from lab.ssh._connection import Connection
from lab.ssh._exec import Exec
from lab.ssh._pump import PeerGone, Pump
from lab.ssh._shell import PRELUDE, Output, Shell, ShellLost
from lab.ssh._tunnel import Tunnel

log = lab_log.get(__name__)

_OUTPUT_BOUND = 4 << 20  # a stream
_SHOWN = 400  # bytes of output in a message
_KILL_S = 5.0
_END_S = 2.0  # a program that left its parent may hold the channel open
_SIGN_OF_LIFE_S = 15.0  # an emulated guest on a busy machine answers late
# The last argument is the content's size: a connection that is cut ends the input as a finished one does.
_WRITE = """set -e
[ ! -d "$1" ] || { echo "$1 is a directory" >&2; exit 1; }
umask 077
trap 'rm -f "$2"' EXIT
cat >"$2"
[ "$(wc -c <"$2")" -eq "$4" ] || { echo "the content did not arrive whole" >&2; exit 1; }
chmod "$3" "$2"
mv -f "$2" "$1"
"""
# Under OpenSSH the shell leads a process group of its own, under dropbear it does not: so its whole tree is ended.
_KILL = r"""tree() {
  for status in $(grep -ls "^PPid:[[:space:]]*$1\$" /proc/[0-9]*/status); do
    status=${status%/status}
    tree "${status#/proc/}"
  done
  kill -KILL "$1"
}
kill -KILL -"$1" 2>/dev/null
tree "$1" 2>/dev/null
:"""


def connect(endpoint: Endpoint, login: SshLogin, *, timeout_s: float) -> SshChannel:
    """Connect once. Raises `GuestUnreachable`, `HostKeyChanged`, `GuestLoginRefused` within `timeout_s`."""
    return SshChannel(Connection.open(endpoint, login, timeout_s=timeout_s), endpoint, login)


class SshChannel:
    """A channel over SSH; threads may share it."""

    def __init__(self, connection: Connection, endpoint: Endpoint, login: SshLogin) -> None:
        self._connection = connection
        self._endpoint = endpoint
        self._login = login
        self._shell: Shell | None = None
        self._shell_is_mine = threading.Lock()

    @property
    def endpoint(self) -> Endpoint:
        return self._endpoint

    @property
    def login(self) -> SshLogin:
        return self._login

    def is_connected(self) -> bool:
        """Whether the connection stands as far as this end knows."""
        return self._connection.is_active()

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = 60.0) -> CommandResult:
        """Run to the end; each stream of output is kept up to 4 MiB.

        Without `stdin` the command runs in a subshell of one long-lived shell, which costs a third of a new channel.
        There a process left in the background with its output open may write into later answers: redirect it.
        Raises `CommandTimedOut`, `GuestUnreachable`, and `GuestCommandFailed` when the command ended the
        shell around it.
        """
        started = time.monotonic()
        deadline = started + timeout_s
        if stdin or not self._shell_is_mine.acquire(blocking=False):
            output = self._run_alone(argv, stdin, deadline)
        else:
            try:
                output = self._run_in_shell(argv, deadline)
            finally:
                self._shell_is_mine.release()
        seconds = time.monotonic() - started
        status = -1 if output.status is None else output.status
        return CommandResult(tuple(argv), status, output.stdout, output.stderr, seconds, output.truncated)

    def stream(self, argv: Sequence[str], *, timeout_s: float = 60.0, limit_bytes: int = 1 << 20) -> Iterator[bytes]:
        """Yield standard output as it comes, at most `limit_bytes` of it; closing the iterator ends the command.

        Standard error is thrown away. Raises `CommandTimedOut`, `GuestUnreachable`.
        """
        deadline = time.monotonic() + timeout_s
        task = Exec(argv, 0)
        with self._channel_for(task, deadline) as pump:
            finished = False
            try:
                with self._in_our_words(argv, deadline, task.so_far):
                    yield from task.stream(pump, deadline, limit_bytes)
                finished = pump.has_ended()
            finally:
                if not finished:
                    self._kill(task.await_pid(pump), pump)

    def read(self, path: PurePath, *, limit_bytes: int = 16 << 20) -> bytes:
        """A file's content. Raises `GuestCommandFailed` when it cannot be read or is larger than the limit."""
        argv = ("head", "-c", str(limit_bytes + 1), "--", str(path))
        deadline = time.monotonic() + 60.0
        with self._shell_is_mine:
            output = self._run_in_shell(argv, deadline, limit_bytes=limit_bytes + 1)
        if output.status != 0:
            raise GuestCommandFailed(f"{str(path)!r} cannot be read: {_shown(output.stderr)}")
        if len(output.stdout) > limit_bytes:
            raise GuestCommandFailed(f"{str(path)!r} is larger than {limit_bytes} bytes")
        return output.stdout

    def write(self, path: PurePath, data: bytes, *, mode: int = 0o644) -> None:
        """Put a file there whole or not at all; a symbolic link is replaced. Raises `GuestCommandFailed`."""
        beside = f"{path}.lab-{secrets.token_hex(4)}"
        argv = ("/bin/sh", "-c", _WRITE, "sh", str(path), beside, f"{mode:o}", str(len(data)))
        result = self._run_alone(argv, data, time.monotonic() + 60.0)
        if result.status != 0:
            raise GuestCommandFailed(f"{str(path)!r} cannot be written: {_shown(result.stderr)}")

    def program(self, argv: Sequence[str], *, timeout_s: float) -> Pump:
        """A program whose input, output and errors are the caller's, who closes it. Raises `GuestUnreachable`."""
        return self._connection.exec(f"{PRELUDE}exec {shlex.join(argv)}".encode(), time.monotonic() + timeout_s)

    def tunnel(self, far: Endpoint, *, timeout_s: float) -> Tunnel:
        """A TCP connection from the other end to `far`. Raises `ConnectionError`, `GuestUnreachable`."""
        return self._connection.tunnel(far, timeout_s)

    def close(self) -> None:
        """Close the connection; safe to call twice."""
        self._shell = None
        self._connection.close()

    def reconnect(self, timeout_s: float, *, endpoint: Endpoint | None = None) -> None:
        """Connect anew, trying until it succeeds: after a reboot or a restore, perhaps at another `endpoint`.

        Raises `GuestUnreachable` after `timeout_s`; `HostKeyChanged` and `GuestLoginRefused` at once.
        """
        self.close()
        self._endpoint = endpoint or self._endpoint
        last: list[GuestUnreachable] = []
        deadline = time.monotonic() + timeout_s
        greeting_s = 2.0

        def tried() -> Connection | None:
            nonlocal greeting_s
            left_s = max(1.0, deadline - time.monotonic())
            try:
                # A connection that was begun while the guest was down may stay silent: a new one is quicker. But who
                # always hangs up early keeps a busy guest from ever greeting.
                return Connection.open(self._endpoint, self._login, timeout_s=min(left_s, 30.0), greeting_s=greeting_s)
            except GuestUnreachable as reason:
                last[:] = [reason]
                greeting_s = min(greeting_s * 1.5, 25.0)
                return None

        try:
            self._connection = waiting.until(tried, what="SSH to come back", timeout_s=timeout_s)
        except WaitedTooLong:
            raise GuestUnreachable(
                f"SSH did not come back within {timeout_s:.0f} s; at last: {last[0].what}",
                hint="look at the console log: it tells how far the guest came",
            ) from last[0]

    def with_login(self, login: SshLogin, *, timeout_s: float) -> SshChannel:
        """A new channel to the same guest after its host key was renewed; this one is closed.

        Raises what `reconnect` raises.
        """
        channel = SshChannel(self._connection, self._endpoint, login)
        self._shell = None
        channel.reconnect(timeout_s)
        return channel

    def _run_in_shell(self, argv: Sequence[str], deadline: float, *, limit_bytes: int = _OUTPUT_BOUND) -> Output:
        shell = self._shell
        # Taken away until the command ended well: whatever goes wrong, the next command gets a new shell.
        self._shell = None
        if shell is None:
            shell = Shell(self._connection.exec(b"exec /bin/sh", deadline))
        try:
            with self._in_our_words(argv, deadline, shell.so_far):
                output = shell.run(argv, deadline=deadline, limit_bytes=limit_bytes)
        except BaseException:
            self._kill(shell.pid, shell.pump)
            shell.close()
            raise
        self._shell = shell
        return output

    def _run_alone(self, argv: Sequence[str], stdin: bytes, deadline: float) -> Output:
        task = Exec(argv, _OUTPUT_BOUND)
        with self._channel_for(task, deadline) as pump:
            try:
                with self._in_our_words(argv, deadline, task.so_far):
                    return task.run(pump, stdin, deadline)
            except BaseException:
                self._kill(task.await_pid(pump), pump)
                raise

    @contextmanager
    def _channel_for(self, task: Exec, deadline: float) -> Iterator[Pump]:
        pump = self._connection.exec(task.command, deadline)
        try:
            yield pump
        finally:
            pump.close()

    def _kill(self, pid: int | None, its: Pump) -> None:
        """End what runs under a process of the guest and see its channel end, as far as that is possible.

        Never raises a lab's error.
        """
        if pid is None or not self._connection.is_active():
            return
        task = Exec(("/bin/sh", "-c", _KILL, "sh", str(pid)), 4096)
        deadline = time.monotonic() + _KILL_S
        try:
            with self._channel_for(task, deadline) as pump:
                task.run(pump, b"", deadline)
            its.await_end(_END_S)
        except (GuestError, OSError, EOFError) as reason:
            log.info("ssh.kill-failed", pid=pid, reason=reason)

    @contextmanager
    def _in_our_words(self, argv: Sequence[str], deadline: float, so_far: Callable[[], Output]) -> Iterator[None]:
        began = time.monotonic()
        said = f"{shlex.join(argv)!r:.300}"
        try:
            yield
        except PeerGone as reason:
            raise GuestUnreachable(f"the guest was lost during {said}: {reason}") from reason
        except TimeoutError as reason:
            if not self._connection.answers(_SIGN_OF_LIFE_S):
                # The limit of the command was shorter than the patience with a silent guest.
                self._connection.close()
                raise GuestUnreachable(f"the guest was lost during {said}: it does not answer any more") from reason
            raise CommandTimedOut(
                f"{said} did not end within {deadline - began:.0f} s; its output so far: {_both(so_far())}"
            ) from reason
        except (ShellLost, EOFError, OSError) as reason:
            if self._connection.breaks():
                raise GuestUnreachable(f"the connection to the guest was lost during {said}") from reason
            raise GuestCommandFailed(
                f"{said} ended the shell that ran it, so it left no status; its output: {_both(so_far())}"
            ) from reason


def _shown(data: bytes) -> str:
    text = data.decode(errors="replace").strip()
    return repr(text if len(text) <= _SHOWN else "..." + text[-_SHOWN:])


def _both(output: Output) -> str:
    if output.stdout and output.stderr:
        return f"{_shown(output.stdout)} and, as errors, {_shown(output.stderr)}"
    return _shown(output.stdout or output.stderr)
