"""One QEMU machine: what every machine can do, and the capabilities of this driver."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from lab import log
from lab.contracts import CommandResult, Endpoint, MachineSpec, MachineState, Migration
from lab.errors import HypervisorRefused
from lab.hypervisors import _qemu_boot as boot
from lab.hypervisors import _qemu_debug as debug
from lab.hypervisors import _qemu_growth as growth
from lab.hypervisors import _qemu_guest as guest
from lab.hypervisors import _qemu_line as line
from lab.hypervisors import _qemu_move as move
from lab.hypervisors import _qemu_plug as plug
from lab.hypervisors import _qemu_power as power
from lab.hypervisors import _qemu_saved as saved
from lab.hypervisors import _qemu_screen as screen
from lab.hypervisors import _qemu_serial as serial
from lab.hypervisors import _qemu_snapshots as snapshots
from lab.hypervisors import _qemu_tpm as tpm
from lab.hypervisors._qemu_arguments import GUEST_ADDRESS
from lab.hypervisors._qemu_store import Directory

_log = log.get(__name__)


class QemuMachine:
    """A machine by its directory; any number of objects in any processes may speak of the same one."""

    def __init__(self, spec: MachineSpec, directory: Directory) -> None:
        self._spec = spec
        self.directory = directory
        self._line: socket.socket | None = None

    @property
    def name(self) -> str:
        return self._spec.name

    @property
    def spec(self) -> MachineSpec:
        return self._spec

    def state(self) -> MachineState:
        if self.directory.exists():
            saved.settle(self.directory)
            move.settle(self.directory)
        return power.state(self.directory)

    def start(self) -> None:
        """Power on, or go on with the saved memory; of a running machine, nothing."""
        if self.has_saved_state():
            saved.wake(self.directory)
            return
        state = self.state()
        if state in (MachineState.RUNNING, MachineState.CRASHED):
            return
        if state is MachineState.PAUSED:
            raise HypervisorRefused(f"{self.name} is paused", hint="resume it")
        power.kill(self.directory)  # a QEMU whose guest powered off and whose keeper was lost
        power.launch(self.directory)

    def stop(self, *, force: bool = False, timeout_s: float = 60.0) -> None:
        """Press the power button and wait, or cut the power."""
        if self.state() in (MachineState.STOPPED, MachineState.GONE):
            force = True  # only a process without a guest may be left
        if not force:
            power.shut_down(self.directory, timeout_s)
        self._cut()

    def _cut(self) -> None:
        if self.directory.exists():
            self.directory.change(wanted="stopped")
            power.kill(self.directory)
            _log.info("machine.stopped", machine=self.name)

    def addresses(self) -> Sequence[str]:
        """The address that QEMU's DHCP server gives to the machine's only client."""
        up = self.state() in (MachineState.RUNNING, MachineState.PAUSED)
        return (GUEST_ADDRESS,) if up else ()

    def endpoint(self, guest_port: int) -> Endpoint:
        power.require_up(self.directory)
        return Endpoint("127.0.0.1", power.forward(self.directory, guest_port))

    def console(self) -> bytes:
        return self.directory.console.read()

    def reproduce(self) -> str:
        return power.reproduce(self.directory.read(), self.directory)

    def resets(self) -> int:
        """How often the guest rebooted by itself since the last start."""
        return self.directory.read().resets + self.directory.events().resets

    def watchdog_fired(self) -> int:
        """How often since the last start; whatever the guest asked for, nothing else happens to it."""
        return self.directory.read().fired + self.directory.events().fired

    def line(self) -> socket.socket:
        """The line to a program in the guest, which the caller closes; of a clone the one that its copy came with."""
        kept, self._line = self._line, None
        return kept or line.opened(self.directory)

    def keep_line(self, opened: socket.socket) -> None:
        """Keep an open line for who asks first."""
        self._line = opened

    def destroy(self) -> None:
        if self._line is not None:
            self._line.close()
        if self.directory.exists():
            self._cut()
        self.directory.remove()

    # -----------------------------------------------------------------------------------------------------
    # Snapshots

    def snapshot(self, name: str) -> None:
        snapshots.take(self.directory, name)

    def restore(self, name: str) -> None:
        snapshots.restore(self.directory, name)

    def delete_snapshot(self, name: str) -> None:
        snapshots.delete(self.directory, name)

    def snapshots(self) -> Sequence[str]:
        return snapshots.names(self.directory)

    def snapshots_hold_memory(self) -> bool:
        return True

    # -----------------------------------------------------------------------------------------------------
    # Pauses

    def pause(self) -> None:
        with power.monitor_of(self.directory) as monitor:
            monitor.command("stop")

    def resume(self) -> None:
        if self.has_saved_state():
            raise HypervisorRefused(f"{self.name} is asleep", hint="start it")
        with power.monitor_of(self.directory) as monitor:
            monitor.command("cont")

    # -----------------------------------------------------------------------------------------------------
    # The agent in the guest

    def agent_answers(self) -> bool:
        return guest.answers(self.directory)

    def agent_run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = 60.0) -> CommandResult:
        return guest.run(self.directory, argv, stdin, timeout_s)

    def agent_read(self, path: PurePath, *, limit_bytes: int = 16 << 20) -> bytes:
        return guest.read(self.directory, path, limit_bytes)

    def agent_write(self, path: PurePath, data: bytes) -> None:
        guest.write(self.directory, path, data)

    def agent_addresses(self) -> Mapping[str, Sequence[str]]:
        return guest.addresses(self.directory)

    def freeze(self) -> int:
        return guest.freeze(self.directory)

    def thaw(self) -> int:
        return guest.thaw(self.directory)

    # -----------------------------------------------------------------------------------------------------
    # What a person would do with buttons and cables

    def inject_nmi(self) -> None:
        with power.monitor_of(self.directory) as monitor:
            monitor.command("inject-nmi")

    def send_sysrq(self, key: str) -> None:
        debug.send_sysrq(self.directory, key)

    def dump_memory(self, file: Path) -> None:
        debug.dump_memory(self.directory, file)

    def type_on_console(self, data: bytes) -> None:
        serial.type_bytes(self.directory, data, timeout_s=serial.LIMIT_S)

    # -----------------------------------------------------------------------------------------------------
    # Firmware

    def tpm_version(self) -> str:
        return tpm.VERSION if self._spec.profile.tpm else ""

    def secure_boot_enforced(self) -> bool:
        return boot.enforces_signatures(self.directory)

    def boot_unsigned(self) -> None:
        boot.without_signature(self.directory)

    def boot_from_network(self, directory: Path, file: str) -> None:
        boot.from_network(self.directory, directory, file)

    # -----------------------------------------------------------------------------------------------------
    # What a person would see

    def screenshot(self) -> bytes:
        return screen.shot(self.directory)

    def set_balloon(self, memory_mib: int) -> None:
        with power.monitor_of(self.directory) as monitor:
            monitor.command("balloon", {"value": memory_mib << 20})

    def balloon_mib(self) -> int:
        with power.monitor_of(self.directory) as monitor:
            return int(monitor.command("query-balloon")["actual"]) >> 20

    def attach_disk(self, name: str, size_mib: int) -> None:
        plug.attach_disk(self.directory, name, size_mib)

    def detach_disk(self, name: str) -> None:
        plug.detach_disk(self.directory, name)

    def resize_data_disk(self, size_mib: int) -> None:
        plug.resize_data(self.directory, size_mib)

    def data_disk_used_bytes(self) -> int:
        return plug.data_used_bytes(self.directory)

    def attach_nic(self, name: str, mac: str) -> None:
        plug.attach_nic(self.directory, name, mac)

    def attach_shared_nic(self, name: str, mac: str, network: str) -> None:
        plug.attach_nic(self.directory, name, mac, shared=network)

    def detach_nic(self, name: str) -> None:
        plug.detach_nic(self.directory, name)

    # -----------------------------------------------------------------------------------------------------
    # Processors and memory

    def set_vcpus(self, count: int) -> None:
        growth.set_vcpus(self.directory, count)

    def vcpus(self) -> int:
        return growth.vcpus(self.directory)

    def attach_memory(self, name: str, size_mib: int) -> None:
        growth.attach_memory(self.directory, name, size_mib)

    def detach_memory(self, name: str) -> None:
        growth.detach_memory(self.directory, name)

    # -----------------------------------------------------------------------------------------------------
    # Sleep

    def save_state(self) -> None:
        saved.save(self.directory)

    def has_saved_state(self) -> bool:
        return self.directory.read().saved

    def discard_saved_state(self) -> None:
        self.directory.forget_saved()

    # -----------------------------------------------------------------------------------------------------
    # Live migration, from one process to another

    def place(self) -> str:
        return move.place(self.directory)

    def destinations(self) -> Sequence[str]:
        return move.destinations(self.directory)

    def migrate_live(self, destination: str, *, with_storage: bool, timeout_s: float = 300.0) -> Migration:
        return move.migrate(self.directory, destination, with_storage=with_storage, timeout_s=timeout_s)
