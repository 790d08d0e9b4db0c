"""One libvirt machine: what the contracts ask of it, told to its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath

from lab.contracts import CommandResult, Endpoint, MachineSpec, MachineState, Migration
from lab.errors import HypervisorRefused
from lab.hypervisors import _libvirt_agent as agent
from lab.hypervisors import _libvirt_console as consoles
from lab.hypervisors import _libvirt_move as move
from lab.hypervisors import _libvirt_plugs as plugs
from lab.hypervisors import _libvirt_power as power
from lab.hypervisors import _libvirt_reach as reach
from lab.hypervisors import _libvirt_screen as screen
from lab.hypervisors import _libvirt_sdk
from lab.hypervisors import _libvirt_snapshots as snapshots
from lab.hypervisors._libvirt_power import Machine

_SLEEP_S = 600.0


class LibvirtMachine:
    """A machine by its UUID; any number of objects in any processes may speak of the same one."""

    def __init__(self, machine: Machine, spec: MachineSpec) -> None:
        self._machine, self._spec = machine, spec

    @property
    def name(self) -> str:
        return self._spec.name

    @property
    def spec(self) -> MachineSpec:
        return self._spec

    @property
    def uuid(self) -> str:
        """Of the domain; the lab touches no other."""
        return self._machine.uuid

    def state(self) -> MachineState:
        return power.state(self._machine)

    def start(self) -> None:
        """Raises `HypervisorRefused`, `LabBusy`, `HostError`."""
        power.start(self._machine)

    def stop(self, *, force: bool = False, timeout_s: float = 60.0) -> None:
        """Press the power button and wait, or cut the power. Raises `WaitedTooLong`, `MachineVanished`."""
        power.stop(self._machine, force=force, timeout_s=timeout_s)

    def addresses(self) -> Sequence[str]:
        return reach.addresses(self._machine)

    def endpoint(self, guest_port: int) -> Endpoint:
        """Raises `HypervisorRefused` when stopped, `MachineVanished`, `GuestHasNoNetwork`, `LabBusy`."""
        return reach.endpoint(self._machine, guest_port)

    def console(self) -> bytes:
        return consoles.read(self._machine)

    def reproduce(self) -> str:
        """The domain, for `virsh`; its disks are layers on the image."""
        image, machine = self._spec.image, self._machine
        document = power.on_domain(machine, "reading the domain", lambda domain: domain.XMLDesc(0))
        link = power.events_of(machine).uri
        return "\n".join(
            (
                f"# the image: {image.disk} ({image.disk_format}); root disk: a qcow2 layer on a copy of it",
                *([f"# kernel: {image.kernel}"] if image.kernel else []),
                "cat >domain.xml <<'END'",
                document.rstrip(),
                "END",
                f"virsh --connect '{link}' define --validate domain.xml",
                f"virsh --connect '{link}' start --console lab-{self.name}",
                "",
            )
        )

    def resets(self) -> int:
        """How often the guest rebooted by itself since the last start, as far as a process of the lab listened."""
        machine = self._machine
        mark, new = power.mark_of(machine), power.events_of(machine).events.take_resets(self.uuid)
        return (power.change(machine, resets=mark.resets + new) if new else mark).resets

    def watchdog_fired(self) -> int:
        """How often since the last start, as far as a process of the lab listened; nothing happens to the guest."""
        machine = self._machine
        mark, new = power.mark_of(machine), power.events_of(machine).events.take_fired(self.uuid)
        return (power.change(machine, fired=mark.fired + new) if new else mark).fired

    def destroy(self) -> None:
        """Safe to call twice. Raises `HypervisorRefused`, `HostError`."""
        consoles.forget(self._machine)
        power.remove(self._machine)

    # -----------------------------------------------------------------------------------------------------
    # Pauses, snapshots, sleep

    def pause(self) -> None:
        power.on_running(self._machine, "pause", lambda domain: domain.suspend())

    def resume(self) -> None:
        if self.has_saved_state():
            raise HypervisorRefused(f"{self.name} is asleep", hint="start it")
        if power.require_up(self._machine).state is MachineState.PAUSED:
            power.on_running(self._machine, "resume", lambda domain: domain.resume())

    def snapshot(self, name: str) -> None:
        snapshots.take(self._machine, name)

    def restore(self, name: str) -> None:
        snapshots.restore(self._machine, name)

    def delete_snapshot(self, name: str) -> None:
        snapshots.delete(self._machine, name)

    def snapshots(self) -> Sequence[str]:
        return snapshots.names(self._machine)

    def snapshots_hold_memory(self) -> bool:
        return True

    def save_state(self) -> None:
        flags = _libvirt_sdk.load().VIR_DOMAIN_SAVE_RUNNING
        power.on_running(self._machine, "save", lambda domain: domain.managedSave(flags), limit_s=_SLEEP_S, again=False)
        power.change(self._machine, wanted="stopped")

    def has_saved_state(self) -> bool:
        return power.look(self._machine).has_saved_state

    def discard_saved_state(self) -> None:
        if self.has_saved_state():
            power.on_domain(self._machine, "discarding the saved memory", lambda domain: domain.managedSaveRemove(0))

    # -----------------------------------------------------------------------------------------------------
    # What comes and goes

    def attach_disk(self, name: str, size_mib: int) -> None:
        plugs.attach_disk(self._machine, name, size_mib)

    def detach_disk(self, name: str) -> None:
        plugs.detach_disk(self._machine, name)

    def resize_data_disk(self, size_mib: int) -> None:
        plugs.resize_data(self._machine, size_mib)

    def data_disk_used_bytes(self) -> int:
        return plugs.data_used_bytes(self._machine)

    def attach_nic(self, name: str, mac: str) -> None:
        plugs.attach_nic(self._machine, name, mac)

    def detach_nic(self, name: str) -> None:
        plugs.detach_nic(self._machine, name)

    def set_vcpus(self, count: int) -> None:
        plugs.set_vcpus(self._machine, count)

    def vcpus(self) -> int:
        return plugs.vcpus(self._machine)

    def attach_memory(self, name: str, size_mib: int) -> None:
        plugs.attach_memory(self._machine, name, size_mib)

    def detach_memory(self, name: str) -> None:
        plugs.detach_memory(self._machine, name)

    def set_balloon(self, memory_mib: int) -> None:
        plugs.set_balloon(self._machine, memory_mib)

    def balloon_mib(self) -> int:
        return plugs.balloon_mib(self._machine)

    # -----------------------------------------------------------------------------------------------------
    # The agent in the guest

    def agent_answers(self) -> bool:
        return agent.answers(self._machine)

    def agent_run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = 60.0) -> CommandResult:
        return agent.run(self._machine, argv, stdin, timeout_s)

    def agent_read(self, path: PurePath, *, limit_bytes: int = 16 << 20) -> bytes:
        return agent.read(self._machine, path, limit_bytes)

    def agent_write(self, path: PurePath, data: bytes) -> None:
        agent.write(self._machine, path, data)

    def agent_addresses(self) -> Mapping[str, Sequence[str]]:
        return agent.addresses(self._machine)

    def freeze(self) -> int:
        return agent.freeze(self._machine)

    def thaw(self) -> int:
        return agent.thaw(self._machine)

    # -----------------------------------------------------------------------------------------------------
    # What a person would do with buttons and cables, and see

    def inject_nmi(self) -> None:
        power.on_running(self._machine, "NMI", lambda domain: domain.injectNMI(0))

    def type_on_console(self, data: bytes) -> None:
        consoles.type_bytes(self._machine, data)

    def screenshot(self) -> bytes:
        return screen.shot(self._machine)

    def tpm_version(self) -> str:
        return "2.0" if self._spec.profile.tpm else ""

    # -----------------------------------------------------------------------------------------------------
    # Live migration, from one libvirtd to another

    def place(self) -> str:
        return move.place(self._machine)

    def destinations(self) -> Sequence[str]:
        return move.destinations(self._machine)

    def migrate_live(self, destination: str, *, with_storage: bool, timeout_s: float = 300.0) -> Migration:
        return move.migrate(self._machine, destination, with_storage=with_storage, timeout_s=timeout_s)
