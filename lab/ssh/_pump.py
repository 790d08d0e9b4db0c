"""Bytes in and out of one SSH channel, with a limit in time and a look whether the other end still lives."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from lab.ssh._dial import MeteredSocket

if TYPE_CHECKING:
    import paramiko

_CHUNK = 1 << 18
_FIRST_QUESTION_S = 10.0  # of silence
_PATIENCE_S = 60.0  # an emulated guest on a busy machine may stand still for long


class PeerGone(ConnectionError):
    """The connection broke, or the guest behind it does not answer any more."""


class Bounded:
    """Bytes kept up to a limit; what comes after is thrown away."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._kept = bytearray()
        self.truncated = False

    def feed(self, data: bytes) -> None:
        room = self._limit - len(self._kept)
        if len(data) > room:
            self.truncated = True
        self._kept += data[:room]

    def value(self) -> bytes:
        return bytes(self._kept)


def is_live(transport: paramiko.Transport) -> bool:
    """Whether a connection stands; its thread may have died of what a server sent without marking it so."""
    return transport.is_active() and transport.is_alive()


class Pulse:
    """Asks the SSH server whether it is there while nothing else comes from it.

    TCP alone does not tell: a forward on this machine acknowledges for a guest that has died.
    """

    def __init__(self, transport: paramiko.Transport, meter: MeteredSocket, *, patience_s: float = _PATIENCE_S) -> None:
        self._transport = transport
        self._meter = meter
        self._patience_s = patience_s
        self._first_question_s = min(_FIRST_QUESTION_S, patience_s / 3)
        self._heard = time.monotonic()
        self._question: threading.Thread | None = None
        self._asked = self._heard

    def heard(self) -> None:
        """Something came from the guest."""
        self._heard = time.monotonic()
        self._meter.taken()

    def check(self) -> None:
        """Raise `PeerGone` when the connection is closed or the guest was silent for too long."""
        if not is_live(self._transport):
            raise PeerGone("the connection was closed")
        if time.monotonic() - self._heard < self._first_question_s:
            return
        # Silence counts from the question on: a connection that nobody used for long has had nothing to say.
        question = self._asking()
        silent_s = time.monotonic() - max(self._heard, self._asked)
        if question.is_alive() and silent_s > self._patience_s - self._first_question_s:
            self._transport.close()
            raise PeerGone(f"the guest did not answer for {silent_s:.0f} s")

    def answers(self, within_s: float) -> bool:
        """Whether anything comes from the guest within that time, when it is asked for a sign of life."""
        before = self._heard
        question = self._asking()
        question.join(within_s)
        return is_live(self._transport) and self._heard > before

    def _asking(self) -> threading.Thread:
        """The question that is under way; one at a time."""
        question = self._question
        if question is None or not question.is_alive():
            question = self._question = threading.Thread(target=self._ask, name="ssh-pulse", daemon=True)
            self._asked = time.monotonic()
            question.start()
        return question

    def next_look_s(self) -> float:
        """After how many seconds of further silence `check` should be called again."""
        return self._first_question_s / 2

    def _ask(self) -> None:
        try:
            # Any reply will do, also "no such request" (RFC 4254, 4). It waits without a limit but ends with the
            # connection, which `check` closes.
            self._transport.global_request("keepalive@openssh.com", wait=True)
        except Exception:  # noqa: BLE001 - a thread of its own: `check` sees the silence or the closed connection
            return
        if is_live(self._transport):
            self.heard()


class _Wake(threading.Event):
    """Set by the SSH library when something comes or ends; only the reader takes it back.

    `Channel.fileno()` would serve as well, but the library sets and closes its pipe without a common lock:
    a wake-up can get lost, and a byte can go into a file that was opened since under the same number.
    """

    def clear(self) -> None:
        """What the library calls after each read; of no use here."""

    def rearm(self) -> None:
        super().clear()


class Pump:
    """One channel."""

    def __init__(self, channel: paramiko.Channel, pulse: Pulse) -> None:
        self._channel = channel
        self._pulse = pulse
        self._wake = _Wake()
        channel.in_buffer.set_event(self._wake)
        channel.in_stderr_buffer.set_event(self._wake)
        channel.settimeout(0.0)

    def take(self) -> tuple[bytes, bytes]:
        """What has come on standard output and standard error; does not wait."""
        self._wake.rearm()
        out = self._channel.recv(_CHUNK) if self._channel.recv_ready() else b""
        err = self._channel.recv_stderr(_CHUNK) if self._channel.recv_stderr_ready() else b""
        if out or err:
            self._pulse.heard()
        if self._channel.recv_ready() or self._channel.recv_stderr_ready():
            self._wake.set()  # more than one chunk lies there
        return out, err

    def read(self, deadline: float) -> tuple[bytes, bytes]:
        """Wait until something comes. Raises `TimeoutError`, `EOFError` at the channel's end, `PeerGone`."""
        while True:
            out, err = self.take()
            if time.monotonic() > deadline:
                raise TimeoutError  # also for an endless output
            if out or err:
                return out, err
            if self.has_ended():
                raise EOFError("the channel was closed")
            self.wait(deadline)

    def wait(self, deadline: float, *, at_most_s: float = 3600.0) -> None:
        """Wait until something came since `take`. Raises `TimeoutError`, `PeerGone`."""
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        if not self._wake.wait(min(left_s, at_most_s, self._pulse.next_look_s())):
            self._pulse.check()

    def has_ended(self) -> bool:
        """Whether nothing will come any more and everything was taken."""
        ended = self._channel.closed or bool(self._channel.eof_received)
        return ended and not self._channel.recv_ready() and not self._channel.recv_stderr_ready()

    def is_closed(self) -> bool:
        """Whether the channel is closed in both directions."""
        return self._channel.closed

    def discard(self, *, at_most_bytes: int = 64 << 20) -> None:
        """Throw away what lies there."""
        gone = 0
        while gone < at_most_bytes:
            out, err = self.take()
            if not out and not err:
                return
            gone += len(out) + len(err)

    def send_some(self, data: bytes) -> int:
        """Send what the other end has room for, perhaps nothing. Raises `EOFError` when the channel is closed."""
        if not self._channel.send_ready():
            return 0
        try:
            return self._channel.send(data[:_CHUNK])
        except TimeoutError:
            return 0
        except OSError as reason:
            raise EOFError("the channel was closed") from reason

    def send(self, data: bytes, deadline: float) -> None:
        """Send all. Raises `TimeoutError`, `EOFError`, `PeerGone`."""
        view = memoryview(data)
        while view:
            sent = self.send_some(bytes(view[:_CHUNK]))
            view = view[sent:]
            if not sent:
                self.wait(deadline, at_most_s=0.01)

    def end_input(self) -> None:
        """Tell the command that its standard input ends here."""
        self._channel.shutdown_write()

    def await_end(self, timeout_s: float) -> None:
        """Wait until the other end closes the channel, throwing away what comes; raises nothing at the limit.

        dropbear 2022.83 breaks the connection off ("Failed assertion `!channel->sent_close'") when it is told to close
        a channel whose command still writes.
        """
        deadline = time.monotonic() + timeout_s
        with suppress(TimeoutError, PeerGone):
            while not self._channel.closed:
                self.discard()
                self.wait(deadline, at_most_s=0.01 if self.has_ended() else 3600.0)

    def status(self) -> int | None:
        """The exit status, when it came."""
        return self._channel.recv_exit_status() if self._channel.exit_status_ready() else None

    def close(self) -> None:
        self._channel.close()
