"""One Xen machine: what the contracts ask of it, told to its parts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lab.contracts import Endpoint, MachineSpec, MachineState, Migration
from lab.errors import GuestHasNoNetwork, HypervisorRefused
from lab.hypervisors import _sysrq as sysrq
from lab.hypervisors import _xen_cold as cold
from lab.hypervisors import _xen_dump as dump
from lab.hypervisors import _xen_images as images
from lab.hypervisors import _xen_keys as keys
from lab.hypervisors import _xen_move as move
from lab.hypervisors import _xen_plugs as plugs
from lab.hypervisors import _xen_power as power
from lab.hypervisors import _xen_screen as screen
from lab.hypervisors import _xen_snapshots as snapshots
from lab.hypervisors import _xen_traces as traces
from lab.hypervisors._xen_config import Kind
from lab.hypervisors._xen_link import said
from lab.hypervisors._xen_power import Machine
from lab.hypervisors._xen_sites import Site

_UP = (MachineState.RUNNING, MachineState.PAUSED)

_TYPE = """# type on a console
set -eu
terminal=$(xenstore-read "/local/domain/$1")
case $terminal in /dev/pts/*[!0-9]*) exit 1 ;; /dev/pts/[0-9]*) cat >"$terminal" ;; *) exit 1 ;; esac
"""
# Whom the bridge has seen with that card's address: the dom0's own neighbours, and leases of a dnsmasq there.
_NEIGHBOURS = """# look for an address
ip -4 neighbour show dev "$1" | head -n 1000
cat /var/lib/misc/dnsmasq.leases /var/lib/libvirt/dnsmasq/*.leases 2>/dev/null | head -c 65536
:
"""


class XenMachine:
    """A machine by its mark; any number of objects in any processes may speak of the same one."""

    def __init__(self, machine: Machine, site: Site) -> None:
        self._machine, self._site = machine, site

    @property
    def name(self) -> str:
        return self._machine.name

    @property
    def spec(self) -> MachineSpec:
        return self._machine.mark.spec

    @property
    def uuid(self) -> str:
        """Of the domain; the lab touches no other."""
        return self._machine.mark.uuid

    def state(self) -> MachineState:
        return power.look(self._machine).state

    def start(self) -> None:
        """Raises `HypervisorRefused`, `LabBusy`, `HostError`."""
        power.start(self._machine)

    def stop(self, *, force: bool = False, timeout_s: float = 60.0) -> None:
        """Ask the guest through xenbus, or cut the power. Raises `WaitedTooLong`, `MachineVanished`."""
        power.stop(self._machine, force=force, timeout_s=timeout_s)

    def addresses(self) -> Sequence[str]:
        """The address that the lab gave the guest, or that the dom0's neighbours and leases tell of its card."""
        if power.look(self._machine).state not in _UP:
            return ()
        return (self._machine.mark.address,) if self._machine.mark.address else self._seen()

    def _seen(self) -> tuple[str, ...]:
        link, mac = self._machine.link, self._machine.mark.mac
        lines = link.sh(_NEIGHBOURS, link.dom0.bridge).out.lower().splitlines()
        found = (re.search(r"\b\d{1,3}(?:\.\d{1,3}){3}\b", line) for line in lines if mac in line.split())
        return tuple(dict.fromkeys(match[0] for match in found if match))

    def endpoint(self, guest_port: int) -> Endpoint:
        """Raises `HypervisorRefused` when stopped, `MachineVanished`, `GuestHasNoNetwork` while no address is known."""
        power.require_up(self._machine)
        address = self._machine.mark.address or next(iter(self._seen()), "")
        if not address:
            raise GuestHasNoNetwork(
                f"{self.name} has no address that the dom0 of {self._machine.link.host} knows",
                hint=f"its card on {self._machine.link.dom0.bridge} is {self._machine.mark.mac}: does it ask by DHCP?",
            )
        return self._machine.link.reach(address, guest_port)

    def console(self) -> bytes:
        """What xenconsoled logged of all boots; of HVM, behind what came out of the serial port."""
        return traces.console(self._machine)

    def resets(self) -> int:
        """How often xl started the domain anew since the machine was started."""
        return traces.resets(self._machine)

    def reproduce(self) -> str:
        """The files and the xl.cfg that make it, for somebody in the dom0."""
        image, folder = self.spec.image, self._machine.folder
        kernel, ramdisk = images.boot_files(folder.root, image, self._machine.kind)
        lines = [
            "# in the dom0, as root; the files of the image come from the machine of the lab:",
            f"#   {image.disk} -> {folder.file('root.raw')} (raw)",
        ]
        if image.kernel is not None:
            how = "" if self._machine.kind is Kind.HVM else " (the lab takes the ELF file out of it)"
            lines.append(f"#   {image.kernel} -> {kernel}{how}")
        if image.initrd is not None:
            lines.append(f"#   {image.initrd} -> {ramdisk}")
        if self.spec.seed is not None:
            lines.append(f"#   {folder.file('seed.raw')} is a tar archive with the guest's identity")
        if self.spec.data_disk_mib:
            lines.append(f"truncate -s {self.spec.data_disk_mib}M {folder.file('data.raw')}")
        # Somebody who makes it by hand needs no overlay.
        copied = replace(self._machine, mark=replace(self._machine.mark, overlay=False))
        lines += [f"cat >{folder.file('xl.cfg')} <<'END'", power.configuration(copied) + "END"]
        return "\n".join([*lines, f"xl create {folder.file('xl.cfg')}", ""])

    def destroy(self) -> None:
        """Safe to call twice. Raises `HypervisorRefused`, `HostError`."""
        traces.remove(self._machine, power.end(self._machine))

    # -----------------------------------------------------------------------------------------------------
    # Pauses, snapshots, sleep

    def pause(self) -> None:
        power.command(self._machine, "pause", str(power.require_up(self._machine).domid))

    def resume(self) -> None:
        domain = power.require_up(self._machine)
        if domain.state is MachineState.PAUSED:
            power.command(self._machine, "unpause", str(domain.domid))

    def snapshot(self, name: str) -> None:
        snapshots.take(self._machine, name)

    def restore(self, name: str) -> None:
        snapshots.restore(self._machine, name)

    def delete_snapshot(self, name: str) -> None:
        snapshots.forget(self._machine, name)

    def snapshots(self) -> Sequence[str]:
        return snapshots.names(self._machine)

    def snapshots_hold_memory(self) -> bool:
        return True

    def save_state(self) -> None:
        power.sleep(self._machine)

    def has_saved_state(self) -> bool:
        return power.look(self._machine).has_saved_state

    def discard_saved_state(self) -> None:
        folder = self._machine.folder
        self._machine.link.run(("rm", "-f", folder.file("saved"), folder.file("came.cfg")))

    # -----------------------------------------------------------------------------------------------------
    # Places

    def place(self) -> str:
        return move.place(self._machine)

    def destinations(self) -> Sequence[str]:
        return move.destinations(self._machine, self._site)

    def migrate_live(self, destination: str, *, with_storage: bool, timeout_s: float = 300.0) -> Migration:
        """To another domain of the host, which keeps the disks, or to a host that it has met, with them.

        Raises `HypervisorRefused`, and `NotSupported` for PV where this Xen has no log of dirty pages for it.
        """
        moved = move.migrate(self._machine, self._site, destination, with_storage=with_storage, timeout_s=timeout_s)
        self._machine, self._site = moved.machine, moved.site
        return moved.took

    def cold_destinations(self) -> Sequence[str]:
        return cold.destinations(self._machine, self._site)

    def migrate_cold(self, destination: str, *, timeout_s: float = 900.0) -> Migration:
        """To a host that this one has met. Raises `HypervisorRefused`."""
        moved = cold.migrate(self._machine, self._site, destination, timeout_s=timeout_s)
        self._machine, self._site = moved.machine, moved.site
        return moved.took

    # -----------------------------------------------------------------------------------------------------
    # What comes and goes

    def attach_disk(self, name: str, size_mib: int) -> None:
        """A virtual disk of Xen has no serial number; the guest sees the next free letter."""
        plugs.attach_disk(self._machine, name, size_mib)

    def detach_disk(self, name: str) -> None:
        plugs.detach_disk(self._machine, name)

    def attach_nic(self, name: str, mac: str) -> None:
        plugs.attach_nic(self._machine, name, mac)

    def attach_shared_nic(self, name: str, mac: str, network: str) -> None:
        plugs.attach_nic(self._machine, name, mac, network=network)

    def detach_nic(self, name: str) -> None:
        plugs.detach_nic(self._machine, name)

    def resize_data_disk(self, size_mib: int) -> None:
        plugs.resize_data(self._machine, size_mib)

    def data_disk_used_bytes(self) -> int:
        return plugs.data_used_bytes(self._machine)

    def set_balloon(self, memory_mib: int) -> None:
        plugs.set_memory(self._machine, memory_mib)

    def balloon_mib(self) -> int:
        return power.require_up(self._machine).memory_mib

    def attach_memory(self, name: str, size_mib: int) -> None:
        plugs.attach_memory(self._machine, name, size_mib)

    def detach_memory(self, name: str) -> None:
        plugs.detach_memory(self._machine, name)

    def set_vcpus(self, count: int) -> None:
        plugs.set_vcpus(self._machine, count)

    def vcpus(self) -> int:
        return power.require_up(self._machine).vcpus

    # -----------------------------------------------------------------------------------------------------
    # Keys that host and guest share

    def key_store(self) -> str:
        return keys.STORE

    def set_key(self, name: str, value: str) -> None:
        keys.write(self._machine, name, value)

    def key(self, name: str) -> str | None:
        return keys.read(self._machine, name)

    def key_names(self) -> Sequence[str]:
        return keys.names(self._machine)

    def delete_key(self, name: str) -> None:
        keys.forget(self._machine, name)

    # -----------------------------------------------------------------------------------------------------
    # What a person would do with buttons and cables

    def inject_nmi(self) -> None:
        power.command(self._machine, "trigger", str(power.require_up(self._machine).domid), "nmi")

    def send_sysrq(self, key: str) -> None:
        """Through xenstore, where the guest's kernel watches for it (drivers/xen/manage.c)."""
        power.command(self._machine, "sysrq", str(power.require_up(self._machine).domid), sysrq.checked(key))

    def dump_memory(self, file: Path) -> None:
        dump.dump(self._machine, file)

    def screenshot(self) -> bytes:
        """Raises `NotSupported` for PV and PVH, which have no display; `HypervisorRefused`, `HostError`."""
        return screen.shot(self._machine)

    def type_on_console(self, data: bytes) -> None:
        """Through the terminal of the dom0 that xenconsoled, or the device model, keeps for the domain."""
        domain = power.require_up(self._machine)
        # A guest that boots from its disk has its login where every PC has it, on the first serial port.
        by_disk = self._machine.kind is Kind.HVM and self.spec.image.kernel is None
        terminal = f"{domain.domid}/{'serial/0' if by_disk else 'console'}/tty"
        result = self._machine.link.sh(_TYPE, terminal, stdin=data)
        if result.status != 0:
            raise HypervisorRefused(f"{self.name} has no console that can be typed on: {said(result)}")
