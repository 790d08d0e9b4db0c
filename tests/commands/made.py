"""An inventory of simulated hosts, and machines that are up by hand on them without anybody having booted them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lab.contracts import Image, MachineSpec, Owner
from lab.hypervisors import simulated
from lab.hypervisors._simulated_machine import SimulatedMachine
from lab.inventory import load
from lab.inventory.models import Inventory
from lab.runner import by_hand
from lab.runner.by_hand import Spot
from lab.runner.kept import Document

Call = Callable[..., tuple[int, str, str]]


@dataclass
class Made:
    """The inventory, and machines that are up by hand on its hosts without anybody having booted them."""

    folder: Path

    @property
    def inventory(self) -> Inventory:
        return load.load(self.folder)

    def spot(self, cell: str) -> Spot:
        return by_hand.spot(self.inventory, cell, str(self.folder))

    def keep(self, cell: str, *, hours: float = 0.0) -> SimulatedMachine:
        """A running machine that was brought up so long ago by a command that has ended."""
        at = self.spot(cell)
        at.place.make()
        host = at.inventory.hosts[at.cell.host]
        spec = MachineSpec(
            name=f"lab-{at.place.folder.name}",
            owner=Owner(at.place.run, cell, 2**22 + 1, 1),
            image=Image("none", "sha256:" + "0" * 64, self.folder.parent / "disk.raw", "raw"),
            profile=at.inventory.profiles[at.cell.profile],
        )
        with simulated.connect(host.name, host.settings) as hypervisor:
            machine = hypervisor.create(spec)
        assert isinstance(machine, SimulatedMachine)
        machine.start()
        at.place.write(
            Document(
                cell=cell,
                inventory=self.folder.resolve(),
                machine=machine.name,
                user="root",
                port=22,
                host_key="ssh-ed25519 AAAA",
                warm=False,
                since=datetime.now(UTC) - timedelta(hours=hours),
            )
        )
        return machine
