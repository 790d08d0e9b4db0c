"""One User-Mode Linux machine: what the contracts ask of it, told to its parts."""

from __future__ import annotations

from collections.abc import Sequence

from lab.contracts import Endpoint, MachineSpec, MachineState
from lab.errors import HypervisorRefused
from lab.hypervisors import _sysrq as sysrq
from lab.hypervisors import _uml_arguments as arguments
from lab.hypervisors import _uml_control as control
from lab.hypervisors import _uml_plugs as plugs
from lab.hypervisors import _uml_power as power
from lab.hypervisors import _uml_snapshots as snapshots
from lab.hypervisors._uml_store import Directory


class UmlMachine:
    """A machine, in this process or made by another one; all that it is stands in its directory."""

    def __init__(self, directory: Directory, spec: MachineSpec) -> None:
        self._directory, self._spec = directory, spec

    @property
    def name(self) -> str:
        return self._spec.name

    @property
    def spec(self) -> MachineSpec:
        return self._spec

    @property
    def directory(self) -> Directory:
        return self._directory

    def state(self) -> MachineState:
        return power.state(self._directory)

    def start(self) -> None:
        """Raises `HostError`, `HypervisorRefused`."""
        if power.start(self._directory):
            plugs.share_again(self._directory)

    def stop(self, *, force: bool = False, timeout_s: float = 60.0) -> None:
        """Press Ctrl-Alt-Del, the only button there is, and withhold the restart; with `force`, cut the power.

        Raises `WaitedTooLong` when the guest ignores it, `MachineVanished` when the machine ended unasked before.
        """
        if not self._directory.exists():
            return
        found = self.state()
        if not force and found is MachineState.GONE:
            raise power.vanished(self._directory)
        if not force and found in (MachineState.RUNNING, MachineState.PAUSED):
            power.shut_down(self._directory, timeout_s)
        power.end(self._directory)

    def addresses(self) -> Sequence[str]:
        """The addresses that answered in the machine's network namespace."""
        if self.state() is not MachineState.RUNNING:
            return ()
        return control.neighbours(self._directory.path)

    def endpoint(self, guest_port: int) -> Endpoint:
        """Raises `HypervisorRefused` when stopped, `MachineVanished` when it ended unasked."""
        found = self.state()
        known = self._directory.ports().get(guest_port) if self._directory.exists() else None
        if found is MachineState.CRASHED and known is not None:
            return Endpoint("127.0.0.1", known)  # nobody listens there any more; the console says why
        power.require_up(self._directory)
        if known is None:
            known = control.forward(self._directory.path, guest_port)
            self._directory.keep_ports({**self._directory.ports(), guest_port: known})
        return Endpoint("127.0.0.1", known)

    def console(self) -> bytes:
        return self._directory.console()

    def resets(self) -> int:
        return self._directory.resets()

    def reproduce(self) -> str:
        return arguments.reproduce(self._directory.read(), self._directory)

    def destroy(self) -> None:
        """Safe to call twice."""
        if self._directory.exists():
            power.end(self._directory)
        self._directory.remove()

    def pause(self) -> None:
        power.pause(self._directory)

    def resume(self) -> None:
        power.resume(self._directory)

    def snapshot(self, name: str) -> None:
        """Keep the disks, not the memory. Raises `HypervisorRefused`, `LabDiskFull`."""
        snapshots.take(self._directory, name)

    def restore(self, name: str) -> None:
        """Put the disks back; a machine that ran boots from them."""
        snapshots.restore(self._directory, name)

    def delete_snapshot(self, name: str) -> None:
        snapshots.forget(self._directory, name)

    def snapshots(self) -> Sequence[str]:
        """Raises `HypervisorRefused` when the machine was destroyed."""
        if not self._directory.exists():
            raise HypervisorRefused(f"machine {self.name!r} is gone: it was destroyed")
        return snapshots.names(self._directory)

    def snapshots_hold_memory(self) -> bool:
        return False

    def attach_disk(self, name: str, size_mib: int) -> None:
        """Raises `HypervisorRefused`, `LabDiskFull`."""
        plugs.attach_disk(self._directory, name, size_mib)

    def detach_disk(self, name: str) -> None:
        """Raises `HypervisorRefused` when the guest does not let go of it."""
        plugs.detach(self._directory, "disk", name)

    def attach_nic(self, name: str, mac: str) -> None:
        """Raises `HypervisorRefused`."""
        plugs.attach_nic(self._directory, name, mac)

    def attach_shared_nic(self, name: str, mac: str, network: str) -> None:
        """Raises `HypervisorRefused`, `LabDiskFull`."""
        plugs.attach_shared_nic(self._directory, name, mac, network)

    def type_on_console(self, data: bytes) -> None:
        """Raises `HypervisorRefused` when stopped or when the guest does not take them."""
        power.require_up(self._directory)
        control.type_on_console(self._directory.path, data)

    def send_sysrq(self, key: str) -> None:
        """By the management console. Raises `HypervisorRefused` when stopped or when the kernel does not answer."""
        key = sysrq.checked(key)
        power.require_up(self._directory)
        control.mconsole(self._directory.path, f"sysrq {key}")

    def detach_nic(self, name: str) -> None:
        """Raises `HypervisorRefused`."""
        plugs.detach(self._directory, "nic", name)
