"""Capacity: how many cells a host, and the machine that the lab runs on, take at once."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from lab.contracts import Cell
from lab.inventory.models import Host, Inventory
from lab.provisioning import hosts

MACHINE_OVERHEAD_MIB = 160
"""What a hypervisor process and the cell's own process take beside the guest's memory (measured: 90-140)."""

USABLE_SHARE = 0.75
"""Of the memory that is free now; the rest is for the page cache, which guests' disks live in."""

CELLS_ELSEWHERE = 4
"""Cells at once on a host that is not this machine and does not say `lab_cells_at_once`."""


@dataclass
class Capacity:
    """Counts what runs; a cell starts only where it fits. Not for use from several threads."""

    inventory: Inventory
    processors: int
    memory_mib: int
    _running: dict[Cell, Host] = field(default_factory=dict)
    _machines: dict[Cell, int] = field(default_factory=dict)

    def fits(self, cell: Cell, machines: int = 1) -> bool:
        """Whether this cell, with so many machines at once, may start now."""
        self._machines[cell] = machines
        host = self.inventory.hosts[cell.host]
        on_host = [other for other, its in self._running.items() if its.name == host.name]
        if not hosts.runs_here(host):
            limit = host.cells_at_once if host.cells_at_once is not None else CELLS_ELSEWHERE
            return len(on_host) < limit and self._memory_fits(cell, on_host, host.memory_mib)
        if host.cells_at_once is not None and len(on_host) >= host.cells_at_once:
            return False
        here = [other for other, its in self._running.items() if hosts.runs_here(its)]
        if not here:
            return True  # one cell always may: that it does not fit at all is for its own start to find out
        return (
            # A second vCPU of an emulated guest seldom keeps a processor busy: count cells, not vCPUs.
            len(here) < self.processors
            and self._memory_fits(cell, here, self.memory_mib)
            and self._memory_fits(cell, on_host, host.memory_mib)
        )

    def add(self, cell: Cell, machines: int = 1) -> None:
        self._running[cell] = self.inventory.hosts[cell.host]
        self._machines[cell] = machines

    def remove(self, cell: Cell) -> None:
        self._running.pop(cell, None)
        self._machines.pop(cell, None)

    def _memory_fits(self, cell: Cell, beside: list[Cell], limit_mib: int | None) -> bool:
        if limit_mib is None:
            return True
        return sum(map(self.memory_of, beside)) + self.memory_of(cell) <= limit_mib

    def memory_of(self, cell: Cell) -> int:
        """MiB that a cell takes at most while it runs: each of its machines with all that can be plugged in."""
        profile = self.inventory.profile_of(cell)
        of_one = max(profile.memory_mib, profile.max_memory_mib) + MACHINE_OVERHEAD_MIB
        return of_one * self._machines.get(cell, 1)


def of_this_machine(inventory: Inventory) -> Capacity:
    """What this machine really has: the processors that this process may use, the memory that is free."""
    import psutil

    free_mib = psutil.virtual_memory().available >> 20
    return Capacity(inventory, len(os.sched_getaffinity(0)), int(free_mib * USABLE_SHARE))
