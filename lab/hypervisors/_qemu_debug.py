"""What looks into a QEMU guest from outside: a dump of its memory, and magic keys over its serial line."""

from __future__ import annotations

from pathlib import Path

from lab.errors import HypervisorRefused, WaitedTooLong
from lab.hypervisors import _dump_file as dumps
from lab.hypervisors import _qemu_power as power
from lab.hypervisors import _qemu_serial as serial
from lab.hypervisors._qemu_store import Directory
from lab.hypervisors._sysrq import checked

_DUMP_S = 300.0
_DESCRIPTOR = "lab-dump"


def dump_memory(directory: Directory, file: Path) -> None:
    """QEMU writes into a file that it is handed open, and lets no processor run meanwhile (docs/interop, qmp, dump).

    Raises `HypervisorRefused`, `LabDiskFull`; then no file is left.
    """
    with power.monitor_of(directory) as monitor, dumps.begun(file) as opened:
        monitor.give_file(_DESCRIPTOR, opened.fileno())
        # Detached, because a connection waits for no answer that long.
        arguments = {"paging": False, "protocol": f"fd:{_DESCRIPTOR}", "detach": True}
        monitor.command("dump-guest-memory", dict(arguments))
        try:
            told = monitor.until(
                lambda: _ended(monitor.command("query-dump")), what="QEMU to dump the memory", timeout_s=_DUMP_S
            )
        except WaitedTooLong as reason:
            raise HypervisorRefused(str(reason)) from reason
        if told != "completed":
            raise HypervisorRefused(f"QEMU could not dump the memory: it says {told!r}, perhaps for want of room")
        dumps.require_core(opened, "what QEMU dumped")


def _ended(told: dict[str, object]) -> str | None:
    status = str(told.get("status"))
    return None if status == "active" else status


def send_sysrq(directory: Directory, key: str) -> None:
    """A break on the serial line, then the key: sysrq.rst, "On the serial console (PC style standard serial ports)"."""
    key = checked(key)
    with power.monitor_of(directory) as monitor:
        monitor.command("chardev-send-break", {"id": "console"})
    serial.type_bytes(directory, key.encode(), timeout_s=serial.LIMIT_S)
