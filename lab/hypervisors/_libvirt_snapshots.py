"""Snapshots of a libvirt machine: its disks and, of a running one, its memory, inside the qcow2 files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from lab.contracts import Firmware
from lab.errors import HypervisorRefused, NotSupported
from lab.hypervisors import _libvirt_power as power
from lab.hypervisors import _libvirt_sdk
from lab.hypervisors import _libvirt_xml as xml
from lab.hypervisors._libvirt_power import Machine
from lab.hypervisors._libvirt_xml import Element, element

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LIMIT_S = 600.0


def take(machine: Machine, name: str) -> None:
    """Raises `HypervisorRefused` for a name that is taken, `NotSupported` for hardware without such snapshots."""
    sdk = _libvirt_sdk.load()
    if not _NAME.fullmatch(name):
        raise HypervisorRefused(f"{name!r} cannot be the name of a snapshot")
    if name in names(machine):
        raise HypervisorRefused(f"{machine.name} has a snapshot {name!r} already")
    mark = power.mark_of(machine)
    if mark.spec.profile.firmware is Firmware.UEFI:
        raise NotSupported(
            "libvirt takes no internal snapshot of a machine whose firmware has variables (before 10.10)"
        )
    if power.look(machine).has_saved_state:
        raise HypervisorRefused(f"{machine.name} is asleep", hint="start it first")
    document = power.on_domain(machine, "reading the domain", lambda domain: domain.XMLDesc(0))
    wanted = xml.text(_document(name, xml.read(document)))

    def make(domain: Any) -> None:
        domain.snapshotCreateXML(wanted, sdk.VIR_DOMAIN_SNAPSHOT_CREATE_VALIDATE)

    power.on_domain(machine, f"snapshot {name}", make, limit_s=_LIMIT_S, again=False)


def _document(name: str, domain: Any) -> Element:
    disks = []
    for disk in domain.iterfind("devices/disk"):
        # What is only read cannot change; what is no qcow2 cannot hold an older state.
        keeps = disk.find("readonly") is None and disk.find("driver").get("type") == "qcow2"
        disks.append(element("disk", name=disk.find("target").get("dev"), snapshot="internal" if keeps else "no"))
    return element("domainsnapshot", element("name", text=name), element("disks", *disks))


def restore(machine: Machine, name: str) -> None:
    """Raises `HypervisorRefused` when there is none of that name."""
    sdk = _libvirt_sdk.load()
    if name not in names(machine):
        raise HypervisorRefused(f"{machine.name} has no snapshot {name!r}")
    before = power.mark_of(machine)

    def revert(domain: Any) -> None:
        # Memory that is loaded over that of a machine with other devices would be refused; then QEMU starts anew.
        domain.revertToSnapshot(domain.snapshotLookupByName(name, 0), sdk.VIR_DOMAIN_SNAPSHOT_REVERT_FORCE)

    power.on_domain(machine, f"restoring {name}", revert, limit_s=_LIMIT_S)
    # The mark is a part of what was restored; the ports that lead in and what was asked of it are not.
    wanted = "running" if power.look(machine).is_active else "stopped"
    power.change(machine, ports=before.ports, wanted=wanted, resets=before.resets, fired=before.fired)


def delete(machine: Machine, name: str) -> None:
    """Safe to call twice."""
    if name not in names(machine):
        return
    power.on_domain(
        machine,
        f"deleting snapshot {name}",
        lambda domain: domain.snapshotLookupByName(name, 0).delete(0),
        limit_s=_LIMIT_S,
    )


def names(machine: Machine) -> Sequence[str]:
    """Oldest first: each is the child of the one before, or of the one that was restored before it."""
    sdk = _libvirt_sdk.load()

    def read(domain: Any) -> list[tuple[int, str]]:
        order = sdk.VIR_DOMAIN_SNAPSHOT_LIST_TOPOLOGICAL
        found = domain.listAllSnapshots(order)
        return [(int(xml.read(one.getXMLDesc(0)).findtext("creationTime") or 0), one.getName()) for one in found]

    told = power.on_domain(machine, "listing snapshots", read)
    return [name for _, name in sorted(told, key=lambda entry: entry[0])]  # stable: of one second, parents first
