"""What a libvirt host told of its domains since it was connected: who waits is woken, what counts is counted."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, TypeVar

from lab.errors import WaitedTooLong

T = TypeVar("T")
# An event may be lost with a connection, so who waits looks by himself now and then.
_LOOK_S = 2.0
_KEPT = 1000


class Events:
    """Filled by the thread of libvirt's events, read by all others."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._version = 0
        self._resets: Counter[str] = Counter()
        self._fired: Counter[str] = Counter()
        self._refused: deque[tuple[str, str]] = deque(maxlen=_KEPT)

    def register(self, sdk: Any, connection: Any) -> None:
        """Ask a new connection for its events."""
        wanted = (
            (sdk.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._lifecycle),
            (sdk.VIR_DOMAIN_EVENT_ID_REBOOT, self._reboot),
            (sdk.VIR_DOMAIN_EVENT_ID_WATCHDOG, self._watchdog),
            (sdk.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, self._removed),
            (sdk.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVAL_FAILED, self._removal_failed),
            (sdk.VIR_DOMAIN_EVENT_ID_BALLOON_CHANGE, self._balloon),
        )
        for event, callback in wanted:
            try:
                connection.domainEventRegisterAny(None, event, callback, None)
            except sdk.libvirtError as reason:
                # libvirt's test driver and Xen's know fewer of them; nobody waits for an event alone.
                if reason.get_error_code() not in (sdk.VIR_ERR_NO_SUPPORT, sdk.VIR_ERR_CONFIG_UNSUPPORTED):
                    raise

    def take_resets(self, uuid: str) -> int:
        """How often the guest reset itself since this was asked last."""
        with self._changed:
            return self._resets.pop(uuid, 0)

    def take_fired(self, uuid: str) -> int:
        """How often the watchdog fired since this was asked last."""
        with self._changed:
            return self._fired.pop(uuid, 0)

    def take_refused(self, uuid: str, alias: str) -> bool:
        """Whether the guest said since this was asked last that it keeps a device."""
        with self._changed:
            if (uuid, alias) in self._refused:
                self._refused.remove((uuid, alias))
                return True
            return False

    def until(self, probe: Callable[[], T | None], *, what: str, timeout_s: float) -> T:
        """Look at each event until `probe` answers something true; that answer. Raises `WaitedTooLong`."""
        started = time.monotonic()
        while True:
            seen = self._version
            answer = probe()
            if answer:
                return answer
            waited_s = time.monotonic() - started
            if waited_s >= timeout_s:
                raise WaitedTooLong(f"waited {waited_s:.1f} s for {what}")
            with self._changed:
                left_s = min(_LOOK_S, max(0.01, timeout_s - waited_s))
                self._changed.wait_for(lambda: self._version != seen, timeout=left_s)  # noqa: B023  (called at once)

    def _note(self) -> None:
        self._version += 1
        self._changed.notify_all()

    def _lifecycle(self, connection: Any, domain: Any, event: int, detail: int, opaque: object) -> None:
        del connection, domain, event, detail, opaque
        with self._changed:
            self._note()

    def _reboot(self, connection: Any, domain: Any, opaque: object) -> None:
        del connection, opaque
        with self._changed:
            self._resets[domain.UUIDString()] += 1
            self._note()

    def _watchdog(self, connection: Any, domain: Any, action: int, opaque: object) -> None:
        del connection, action, opaque
        with self._changed:
            self._fired[domain.UUIDString()] += 1
            self._note()

    def _removed(self, connection: Any, domain: Any, alias: str, opaque: object) -> None:
        del connection, domain, alias, opaque
        with self._changed:
            self._note()

    def _removal_failed(self, connection: Any, domain: Any, alias: str, opaque: object) -> None:
        del connection, opaque
        with self._changed:
            self._refused.append((domain.UUIDString(), alias))
            self._note()

    def _balloon(self, connection: Any, domain: Any, actual: int, opaque: object) -> None:
        del connection, domain, actual, opaque
        with self._changed:
            self._note()
