"""The connection to one libvirt daemon: every call is bounded, a lost connection is made anew, errors are the lab's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from enum import Enum
from typing import Any, TypeVar

from lab import log
from lab.errors import HostError, HypervisorRefused, LabBusy, LabDiskFull, LabError
from lab.hypervisors import _libvirt_sdk
from lab.hypervisors._libvirt_events import Events

T = TypeVar("T")
CALL_S = 60.0
OPEN_S = 60.0
_KEEPALIVE_S, _KEEPALIVE_COUNT = 5, 6  # a daemon that is silent for so long is given up
_SHOWN = 1000
_log = log.get(__name__)


class Kind(Enum):
    """What an error of libvirt is about, where the lab decides by it; libvirt's own names (virterror.h)."""

    NO_DOMAIN = "NO_DOMAIN"
    NO_METADATA = "NO_DOMAIN_METADATA"
    NO_SNAPSHOT = "NO_DOMAIN_SNAPSHOT"
    NO_VOLUME = "NO_STORAGE_VOL"
    NO_POOL = "NO_STORAGE_POOL"
    NO_DEVICE = "DEVICE_MISSING"
    INVALID = "OPERATION_INVALID"
    UNSUPPORTED = "OPERATION_UNSUPPORTED"
    NO_SUPPORT = "NO_SUPPORT"
    CONFIG_UNSUPPORTED = "CONFIG_UNSUPPORTED"
    AGENT_SILENT = "AGENT_UNRESPONSIVE"
    AGENT_SAID = "AGENT_COMMAND_FAILED"
    TIMED_OUT = "OPERATION_TIMEOUT"
    EXISTS = "DOM_EXIST"
    VOLUME_EXISTS = "STORAGE_VOL_EXIST"
    OTHER = ""


class LibvirtRefused(HypervisorRefused):
    """Libvirt answered with an error."""

    def __init__(self, what: str, kind: Kind, words: str, *, hint: str = "") -> None:
        super().__init__(what, hint=hint)
        self.kind, self.words = kind, words


class Link:
    """A connection that is made when it is needed, kept, and made anew after it was lost.

    `prepare` is called before each attempt to connect: it starts the daemon, where that is the lab's own.
    """

    def __init__(self, host: str, uri: str, prepare: Callable[[], None] | None = None) -> None:
        self.host, self.uri = host, uri
        self.events = Events()
        self.consoles: dict[str, Any] = {}  # open streams, by the machine's UUID
        self._prepare = prepare
        self._connection: Any = None
        self._lock = threading.RLock()

    def open(self) -> None:
        """Connect unless connected. Raises `HostError`, `MissingExtra`."""
        self._connected()

    def close(self) -> None:
        """Safe to call twice."""
        with self._lock:
            connection, self._connection = self._connection, None
            self.consoles.clear()
        if connection is not None:
            self._give_up(connection)

    def ask(self, doing: str, function: Callable[[Any], T], *, limit_s: float = CALL_S, again: bool = True) -> T:
        """What `function` makes of the connection; it may be called once more when the connection was lost meanwhile.

        Raises `LibvirtRefused` with libvirt's words, `HostError`, `LabBusy`, `LabDiskFull`.
        """
        sdk = _libvirt_sdk.load()
        connection = self._connected()
        try:
            return self._bounded(doing, lambda: function(connection), limit_s)
        except sdk.libvirtError as reason:
            if not _is_lost(sdk, reason, connection):
                raise self._said(sdk, doing, reason) from reason
            _log.warning("libvirt.connection-lost", host=self.host, doing=doing, reason=str(reason)[:200])
        self._forget(connection)
        connection = self._connected()
        if not again:
            raise HostError(
                f"{self.host}: the connection to {self.uri} was lost while {doing}; it may be done or not",
                hint="the connection is there again: look at the machine and decide",
            )
        try:
            return self._bounded(doing, lambda: function(connection), limit_s)
        except sdk.libvirtError as reason:
            raise self._said(sdk, doing, reason) from reason

    # -----------------------------------------------------------------------------------------------------
    # The connection

    def _connected(self) -> Any:
        with self._lock:
            if self._connection is None:
                self._connection = self._opened()
            return self._connection

    def _opened(self) -> Any:
        sdk = _libvirt_sdk.load()
        _libvirt_sdk.run_events()
        if self._prepare is not None:
            self._prepare()
        try:
            connection = self._bounded("connecting", lambda: sdk.open(self.uri), OPEN_S)
        except sdk.libvirtError as reason:
            raise self._unreachable(sdk, reason) from reason
        try:
            connection.setKeepAlive(_KEEPALIVE_S, _KEEPALIVE_COUNT)
        except sdk.libvirtError as reason:
            # libvirt's test driver lives in this process, where nothing is silent.
            if reason.get_error_code() not in (sdk.VIR_ERR_NO_SUPPORT, sdk.VIR_ERR_INTERNAL_ERROR):
                raise
        self.events.register(sdk, connection)
        return connection

    def _unreachable(self, sdk: Any, reason: Any) -> HostError:
        words = _words(reason)
        hint = "is libvirtd or virtqemud running there?"
        if reason.get_error_code() in (sdk.VIR_ERR_AUTH_FAILED, sdk.VIR_ERR_AUTH_CANCELLED, sdk.VIR_ERR_ACCESS_DENIED):
            hint = "may this user use libvirt there (group libvirt, polkit)?"
        elif "Permission denied" in words:
            hint = "this user may not open the daemon's socket: is it in the group libvirt?"
        elif "Host key verification failed" in words or "HOST IDENTIFICATION HAS CHANGED" in words:
            hint = "the host shows another SSH key than lab_host_key"
        return HostError(f"{self.host}: libvirt does not answer at {self.uri}: {words}", hint=hint)

    def _forget(self, connection: Any) -> None:
        with self._lock:
            self.consoles.clear()
            if self._connection is connection:
                self._connection = None
        self._give_up(connection)

    def _give_up(self, connection: Any) -> None:
        sdk = _libvirt_sdk.load()
        try:
            self._bounded("closing the connection", connection.close, 10.0)
        except (sdk.libvirtError, LabError) as reason:
            _log.debug("libvirt.not-closed", host=self.host, reason=str(reason)[:200])

    def _bounded(self, doing: str, function: Callable[[], T], limit_s: float) -> T:
        """In a thread of its own: nothing else ends the waiting for a daemon whose QEMU does not answer."""
        answer: Future[T] = Future()
        thread = threading.Thread(target=_settle, args=(answer, function), name="libvirt-call", daemon=True)
        thread.start()
        try:
            return answer.result(limit_s)
        except TimeoutError:
            if answer.done():
                return answer.result()
            raise HypervisorRefused(f"{self.host}: libvirt did not end {doing} within {limit_s:.0f} s") from None

    # -----------------------------------------------------------------------------------------------------
    # Errors

    def _said(self, sdk: Any, doing: str, reason: Any) -> LabError:
        words = _words(reason)
        what = f"{self.host}: {doing}: {words}"
        if "No space left on device" in words:
            return LabDiskFull(what, hint="free some space where the machines' disks are")
        if "Cannot allocate memory" in words or "cannot set up guest memory" in words:
            return LabBusy(what, hint="no memory is left for one more guest: run fewer at once")
        if "Failed to get" in words and "lock" in words:
            return LabBusy(what, hint="somebody else uses that disk: virsh list --all, or another QEMU")
        if "internal error: client socket is closed" in words:
            return HostError(what, hint="does libvirtd end by itself there? Its log says why")
        code = reason.get_error_code()
        kind = next((kind for kind in Kind if kind.value and getattr(sdk, f"VIR_ERR_{kind.value}", None) == code), None)
        hint = "may the user that libvirt runs guests as enter every folder above lab_folder?"
        is_shut = "Permission denied" in words and ("as uid:" in words or "Could not open" in words)
        return LibvirtRefused(what, kind or Kind.OTHER, words, hint=hint if is_shut else "")


def _settle(answer: Future[T], function: Callable[[], T]) -> None:
    try:
        answer.set_result(function())
    except BaseException as reason:  # noqa: BLE001  whoever waits gets it
        answer.set_exception(reason)


def _words(reason: Any) -> str:
    """Libvirt's words for a report: one line, short, nothing that a terminal obeys."""
    text = " ".join(str(reason).split())
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:_SHOWN]


def _is_lost(sdk: Any, reason: Any, connection: Any) -> bool:
    """Whether it is this connection that was lost; a migration has one more, which is told with the same words."""
    if reason.get_error_code() == sdk.VIR_ERR_INVALID_CONN:
        return True
    try:
        return not connection.isAlive()
    except sdk.libvirtError:
        return True
