"""The reference machine with processors and memory that come and go, a watchdog, sleep, migration, networks."""

from __future__ import annotations

import secrets
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from lab import waiting
from lab.contracts import MachineSpec, MachineState, Migration
from lab.errors import HypervisorRefused
from tests.testing.reference.agent import AgentMachine

PLACES = ("here", "there")
WATCHDOG_S = 2.0


class MovingMachine(AgentMachine):
    """What grows, sleeps and moves."""

    def __init__(self, spec: MachineSpec, folder: Path, tools: Path, lie: str) -> None:
        super().__init__(spec, folder, tools, lie)
        self._vcpus = spec.profile.vcpus
        self._modules: dict[str, int] = {}
        self._fired = 0
        self._counted = 0.0  # the feeding after which it fired last
        self._place = PLACES[0]

    # -- processors, memory --------------------------------------------------------------------------------

    def set_vcpus(self, count: int) -> None:
        if count > self.spec.profile.max_vcpus and self.lie != "cpus-without-end":
            raise HypervisorRefused(f"{count} processors are too many")
        self._vcpus = count
        if self.lie == "cpus-told":
            return
        if self.lie == "cpus-stay":
            count = max(count, self.count_processors())
        self.put_processors(count)

    def vcpus(self) -> int:
        return self._vcpus

    def attach_memory(self, name: str, size_mib: int) -> None:
        profile = self.spec.profile
        if profile.memory_mib + size_mib > profile.max_memory_mib and self.lie != "memory-without-end":
            raise HypervisorRefused(f"{size_mib} MiB are too much")
        self._modules[name] = size_mib
        if self.lie != "memory-told":
            self.set_memory(profile.memory_mib + size_mib)

    def detach_memory(self, name: str) -> None:
        if self._modules.pop(name, None) is None:
            raise HypervisorRefused(f"there is no memory {name}")
        if self.lie != "memory-stays":
            self.set_memory(self.spec.profile.memory_mib)

    # -- watchdog ------------------------------------------------------------------------------------------

    def watchdog_fired(self) -> int:
        fed = self.root / "run/fed"
        if self.lie == "watchdog-always":
            self._fired += 1
        if self.lie == "watchdog-never" or not fed.exists():
            return self._fired
        last = fed.stat().st_mtime
        if last != self._counted and time.time() - last > WATCHDOG_S:
            self._counted = last
            self._fired += 1
            if self.lie == "watchdog-resets":
                self.file("proc/sys/kernel/random/boot_id", secrets.token_hex(8))
        return self._fired

    # -- sleep ---------------------------------------------------------------------------------------------

    def save_state(self) -> None:
        self.must_run()
        self.processes.signal(signal.SIGSTOP)
        self.become(MachineState.STOPPED)
        self.generation += 1
        (self.folder / "asleep").touch()

    def has_saved_state(self) -> bool:
        return (self.folder / "asleep").exists()

    def discard_saved_state(self) -> None:
        if self.has_saved_state() and self.lie != "discards-nothing":
            (self.folder / "asleep").unlink()
            self.processes.signal(signal.SIGKILL)

    def start(self) -> None:
        if not (self.folder / "asleep").exists():
            super().start()
            return
        (self.folder / "asleep").unlink()
        if self.lie == "sleep-boots":
            super().start()
            return
        if self.lie == "sleep-loses-disk":
            (self.root / "var/tmp/contract-slept").unlink(missing_ok=True)
        self.processes.signal(signal.SIGCONT)
        self.become(MachineState.RUNNING)

    # -- migration -----------------------------------------------------------------------------------------

    def place(self) -> str:
        return self._place

    def destinations(self) -> Sequence[str]:
        return [place for place in PLACES if place != self._place]

    def migrate_live(self, destination: str, *, with_storage: bool, timeout_s: float = 300.0) -> Migration:
        if destination not in PLACES and self.lie != "goes-anywhere":
            raise HypervisorRefused(f"there is no place {destination}")
        if self.lie == "moves-in-words":
            self._place = destination
            return Migration(0.0, 0.0, 0)
        started = time.monotonic()
        self.processes.signal(signal.SIGSTOP)
        waiting.pause(0.05)
        self.processes.signal(signal.SIGCONT)
        if self.lie != "moves-not":
            self._place = destination
        if self.lie == "moves-by-boot":
            self.file("proc/sys/kernel/random/boot_id", secrets.token_hex(8))
        if self.lie == "moves-to-another-port":
            self.port += 1
        if self.lie == "moves-without-its-disk" and with_storage:
            for file in (self.root / "var/tmp").iterdir():
                if b"\n2\n" in file.read_bytes():
                    file.write_bytes(file.read_bytes().replace(b"\n2\n", b"\n"))
        self.generation += 1
        return Migration(time.monotonic() - started, 50.0, 20 << 20)

    # -- networks ------------------------------------------------------------------------------------------

    def attach_shared_nic(self, name: str, mac: str, network: str) -> None:
        self.put_card(name, mac, [])
        network = {"one-network": "all", "no-network": self.name}.get(self.lie, network)
        self.file(f"sys/class/net/{name}/network", network)

    def destroy(self) -> None:
        super().destroy()
        shutil.rmtree(self.folder / "asleep", ignore_errors=True)
