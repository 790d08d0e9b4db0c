"""The memory and the devices of a running QEMU machine, written to a file and loaded from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.errors import HypervisorRefused
from lab.hypervisors import _qemu_power as power
from lab.hypervisors._qemu_monitor import Monitor
from lab.hypervisors._qemu_store import Directory, Mark

LIMIT_S = 300.0
_ENDS = ("completed", "failed", "cancelled")
_UNBOUND = 1 << 40  # bytes a second: nobody else uses this file


def size_bytes(mark: Mark) -> int:
    """What a file of it needs at most, but for the devices."""
    return (mark.spec.profile.memory_mib + sum(module.size_mib for module in mark.modules)) << 20


def write(monitor: Monitor, path: Path) -> None:
    """Of a machine that is paused; its disks are written back and let go. Raises `HypervisorRefused`, `OSError`."""
    with path.open("wb") as state:
        monitor.give_file("memory", state.fileno())
    monitor.command("migrate-set-parameters", {"max-bandwidth": _UNBOUND})
    monitor.command("migrate", {"uri": "fd:memory"})
    told = monitor.until(lambda: ended(monitor), what="QEMU to save the memory", timeout_s=LIMIT_S)
    if told["status"] != "completed":
        said = told.get("error-desc", told["status"])
        raise HypervisorRefused(f"QEMU could not save the memory: {said}")


def ended(monitor: Monitor) -> dict[str, Any] | None:
    """What QEMU tells of a migration that came to its end, `None` until then."""
    told: dict[str, Any] = monitor.command("query-migrate")
    return told if told.get("status") in _ENDS else None


def load(directory: Directory, path: Path, before_it_runs: Callable[[Monitor], None]) -> None:
    """Start a machine with that memory; `before_it_runs` is called when it is loaded. Raises `HypervisorRefused`."""
    power.launch(directory, extra=("-S",), incoming=path)
    with power.monitor_of(directory) as monitor:
        monitor.until(lambda: monitor.status() != "inmigrate", what="QEMU to load the memory", timeout_s=LIMIT_S)
        before_it_runs(monitor)
        monitor.command("cont")
