"""TCP ports of 127.0.0.1 that lead into a QEMU machine, as its user-mode network forwards them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial

from lab import log, waiting
from lab.errors import WaitedTooLong
from lab.hypervisors._qemu_arguments import GUEST_ADDRESS
from lab.hypervisors._qemu_monitor import Monitor

_FORWARD = re.compile(r"TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s+\S+\s+(\d+)\s")
_log = log.get(__name__)


def told(monitor: Monitor) -> Mapping[int, int]:
    """TCP port of the guest: port of 127.0.0.1, as QEMU itself tells them."""
    table = monitor.human("info usernet")
    return {int(guest): int(here) for here, guest in rows(table)}


def rows(table: str) -> list[tuple[str, str]]:
    return [(found[1], found[2]) for found in _FORWARD.finditer(table.replace("\r", "\n") + "\n")]


def add(monitor: Monitor, guest: int, here: int) -> str:
    """Make `here` lead to the guest's port (0: any free one); what QEMU says, nothing when it did."""
    return monitor.human(f"hostfwd_add net0 tcp:127.0.0.1:{here}-{GUEST_ADDRESS}:{guest}").strip()


def again(monitor: Monitor, forwards: Mapping[int, int], *, patience_s: float) -> Mapping[int, int]:
    """Make the same ports lead to a machine that has a new process; what leads there then.

    A port that somebody took in between is given up for any free one.
    """
    for guest, here in forwards.items():
        try:
            leads = partial(_leads, monitor, guest, here)
            waiting.until(leads, what=f"port {here}", timeout_s=patience_s)
        except WaitedTooLong as reason:
            _log.warning("port.lost", port=here, reason=reason)
            _leads(monitor, guest, 0)
    return told(monitor)


def _leads(monitor: Monitor, guest: int, here: int) -> bool:
    if guest not in told(monitor):
        add(monitor, guest, here)
    return guest in told(monitor)
