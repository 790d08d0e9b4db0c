"""Libvirt's own Python package, imported once and only when a host is connected; the thread that runs its events."""

from __future__ import annotations

import os
import threading
from typing import Any

from lab import log
from lab.errors import MissingExtra

_log = log.get(__name__)
_LOCK = threading.Lock()
_LOOP: dict[str, int] = {}
_WAKE_MS = 1000


def load() -> Any:
    """The module `libvirt`. Raises `MissingExtra`."""
    try:
        import libvirt
    except ImportError as reason:
        raise MissingExtra("the libvirt driver", "libvirt") from reason
    return libvirt


def load_qemu() -> Any:
    """The module `libvirt_qemu`: what libvirt passes on to QEMU and to the agent in a guest. Raises `MissingExtra`."""
    try:
        import libvirt_qemu
    except ImportError as reason:
        raise MissingExtra("the libvirt driver", "libvirt") from reason
    return libvirt_qemu


def run_events() -> None:
    """Start the one thread of this process that runs libvirt's events. Safe to call again, also after a fork."""
    sdk = load()
    with _LOCK:
        if _LOOP.get("pid") == os.getpid():
            return
        # What libvirt says it says in exceptions too; by itself it writes on standard error.
        sdk.registerErrorHandler(_silent, None)
        sdk.virEventRegisterDefaultImpl()
        # A loop that nothing wakes does not see what other threads gave it.
        sdk.virEventAddTimeout(_WAKE_MS, _nothing, None)
        threading.Thread(target=_run, args=(sdk,), name="libvirt-events", daemon=True).start()
        _LOOP["pid"] = os.getpid()


def _silent(context: object, error: object) -> None:
    del context, error


def _nothing(timer: int, opaque: object) -> None:
    del timer, opaque


def _run(sdk: Any) -> None:
    while True:
        if sdk.virEventRunDefaultImpl() < 0:
            _log.warning("libvirt.events-failed")
