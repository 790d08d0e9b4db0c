"""A machine that is a folder: power states, disks that can be kept and put back, a console that is a script."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from urllib.parse import quote, unquote

from lab.contracts import Endpoint, MachineSpec, MachineState
from lab.errors import HypervisorRefused, MachineVanished, NotSupported
from lab.hypervisors import _machine_directory as files

NOTICE = b"This console is simulated: there is no guest.\n"
CONSOLES: Mapping[str, bytes] = {
    "none": b"",
    "boot-hang": b"Linux version 6.1.0 (simulated)\nKernel command line: root=/dev/vda\nFreeing unused kernel memory\n",
    "panic": b"Linux version 6.1.0 (simulated)\nRun /sbin/init as init process\n"
    b"Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b\n",
    "no-network": b"Linux version 6.1.0 (simulated)\nRun /sbin/init as init process\nsimulated login: ",
    "no-ssh": b"Linux version 6.1.0 (simulated)\nRun /sbin/init as init process\nsimulated login: ",
    "vanishes": b"Linux version 6.1.0 (simulated)\n",
}
_AFTER_START = {"panic": MachineState.CRASHED, "vanishes": MachineState.GONE}
_DRIVER = "simulated"
_UP = (MachineState.RUNNING, MachineState.PAUSED, MachineState.CRASHED)

# Ports of running machines with a fault in their network: they last as long as the process that asked for them.
_doors: dict[Path, socket.socket] = {}


def make(host: str, spec: MachineSpec, fault: str) -> SimulatedMachine:
    """A new, stopped machine. Raises `HypervisorRefused`, `LabDiskFull`."""
    folder = files.of_machine(_DRIVER, host, spec.name)
    files.claim(folder, spec.name, {"spec": asdict(spec), "fault": fault})
    machine = SimulatedMachine(folder, spec, fault)
    machine.disk.write_bytes(b"")
    return machine


def every(host: str) -> Iterator[SimulatedMachine]:
    """Every machine of a host, those of dead controllers too, by name."""
    for _, machine in files.every(_DRIVER, host, _of_mark):
        yield machine


def _of_mark(folder: Path) -> SimulatedMachine:
    mark = files.read_mark(folder)
    return SimulatedMachine(folder, files.spec_of(mark["spec"]), mark["fault"])


class SimulatedMachine:
    """A machine of a simulated host; all that it is stands in its folder."""

    def __init__(self, folder: Path, spec: MachineSpec, fault: str) -> None:
        self._folder, self._spec, self._fault = folder, spec, fault

    @property
    def name(self) -> str:
        return self._spec.name

    @property
    def spec(self) -> MachineSpec:
        return self._spec

    @property
    def disk(self) -> Path:
        """What stands for the content of its disks."""
        return self._folder / "disk"

    def state(self) -> MachineState:
        if not files.is_marked(self._folder):
            return MachineState.GONE
        content = files.read(self._folder / "state.json")
        return MachineState.STOPPED if content is None else MachineState(content["state"])

    def start(self) -> None:
        """Raises `HypervisorRefused` when it was destroyed."""
        self._must_exist()
        if self.state() in (MachineState.RUNNING, MachineState.PAUSED):
            return
        with (self._folder / "console").open("ab") as console:
            console.write(NOTICE + CONSOLES[self._fault])
        self._become(_AFTER_START.get(self._fault, MachineState.RUNNING))

    def stop(self, *, force: bool = False, timeout_s: float = 60.0) -> None:
        """Nobody is inside who could refuse. Raises `MachineVanished` unless forced."""
        del timeout_s
        if not self._folder.exists():
            return
        if self.state() is MachineState.GONE and not force:
            raise self._vanished()
        self._close_door()
        self._become(MachineState.STOPPED)

    def addresses(self) -> Sequence[str]:
        """None: there is no guest that could have one."""
        return ()

    def endpoint(self, guest_port: int) -> Endpoint:
        """A port that behaves as the host's fault wants. Raises `NotSupported` where no fault is set.

        Raises `HypervisorRefused` when stopped, `MachineVanished` when its fault made it vanish.
        """
        self._must_be_up()
        if self._fault == "none":
            raise NotSupported(f"{self.name} is simulated: it has no guest, so nothing answers on port {guest_port}")
        if self._folder not in _doors:
            _doors[self._folder] = socket.create_server(("127.0.0.1", 0), backlog=64)
            if self._fault == "no-ssh":
                threading.Thread(target=_slam, args=(_doors[self._folder],), daemon=True).start()
        return Endpoint("127.0.0.1", _doors[self._folder].getsockname()[1])

    def console(self) -> bytes:
        path = self._folder / "console"
        return path.read_bytes() if path.exists() else b""

    def reproduce(self) -> str:
        image = self._spec.image
        return f"# simulated: no command makes this machine; it was asked for with {image.kernel or image.disk}\n"

    def destroy(self) -> None:
        """Safe to call twice."""
        self._close_door()
        files.remove(self._folder)

    def pause(self) -> None:
        """Safe to call twice."""
        self._must_be_up()
        self._become(MachineState.PAUSED)

    def resume(self) -> None:
        """Safe to call twice."""
        self._must_be_up()
        self._become(MachineState.RUNNING)

    def snapshot(self, name: str) -> None:
        """Raises `HypervisorRefused` when there is one of that name."""
        kept = self._kept(name)
        if kept.exists():
            raise HypervisorRefused(f"{self.name} has a snapshot {name!r} already")
        kept.parent.mkdir(exist_ok=True)
        shutil.copyfile(self.disk, kept)

    def restore(self, name: str) -> None:
        """Raises `HypervisorRefused` when there is none of that name."""
        kept = self._kept(name)
        if not kept.is_file():
            raise HypervisorRefused(f"{self.name} has no snapshot {name!r}")
        self.stop(force=True)
        shutil.copyfile(kept, self.disk)
        self.start()

    def delete_snapshot(self, name: str) -> None:
        """Raises `HypervisorRefused` when there is none of that name."""
        kept = self._kept(name)
        if not kept.is_file():
            raise HypervisorRefused(f"{self.name} has no snapshot {name!r}")
        kept.unlink()

    def snapshots(self) -> Sequence[str]:
        self._must_exist()
        folder = self._folder / "snapshots"
        return sorted(unquote(path.name[3:]) for path in folder.iterdir()) if folder.is_dir() else []

    def snapshots_hold_memory(self) -> bool:
        return False

    def _kept(self, name: str) -> Path:
        self._must_exist()
        if not 0 < len(name) <= 60 or not name.isprintable():
            raise HypervisorRefused(f"{name!r} cannot be the name of a snapshot: 1 to 60 printable characters")
        return self._folder / "snapshots" / f"of-{quote(name, safe='')}"

    def _become(self, state: MachineState) -> None:
        files.write(self._folder / "state.json", {"state": state})

    def _must_exist(self) -> None:
        if not self._folder.exists():
            raise HypervisorRefused(f"machine {self.name!r} is gone: it was destroyed")

    def _must_be_up(self) -> None:
        self._must_exist()
        state = self.state()
        if state is MachineState.GONE:
            raise self._vanished()
        if state not in _UP:
            raise HypervisorRefused(f"{self.name} is {state}")

    def _vanished(self) -> MachineVanished:
        return MachineVanished(f"the simulated machine {self.name} ended unasked: its host's fault is set so")

    def _close_door(self) -> None:
        door = _doors.pop(self._folder, None)
        if door is not None:
            # Closing alone does not wake a thread that waits in accept().
            door.shutdown(socket.SHUT_RDWR)
            door.close()


def _slam(door: socket.socket) -> None:
    """Take every connection and end it at once: a network that works, and nothing that listens."""
    while True:
        try:
            visitor, _ = door.accept()
        except OSError:
            return  # the machine was stopped
        visitor.close()
