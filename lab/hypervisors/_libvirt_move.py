"""Live migration of a libvirt machine from one libvirtd of the host to another, each with QEMUs of its own.

The source's libvirtd speaks to the destination's (peer to peer). Memory and disks go through sockets of this machine,
nothing of it is on a network; or, tunnelled, memory alone goes through the connection of the two daemons, as it would
between hosts whose QEMUs cannot reach each other. With its disks a machine moves onto volumes of another name.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from lab import log
from lab.contracts import Migration
from lab.errors import HostError, HypervisorRefused, LabError, NotSupported
from lab.hypervisors import _libvirt_power as power
from lab.hypervisors import _libvirt_reach as reach
from lab.hypervisors import _libvirt_sdk
from lab.hypervisors import _libvirt_snapshots as snapshots
from lab.hypervisors import _libvirt_xml as xml
from lab.hypervisors._libvirt_link import Kind, LibvirtRefused
from lab.hypervisors._libvirt_power import Machine, Place

_log = log.get(__name__)


def place(machine: Machine) -> str:
    """Raises `HypervisorRefused` when it was destroyed."""
    return _here(machine).name


def destinations(machine: Machine) -> Sequence[str]:
    """The other libvirtd of the host."""
    here = _here(machine)
    return tuple(one.name for one in machine.site.places if one.name != here.name)


def migrate(machine: Machine, destination: str, *, with_storage: bool, timeout_s: float) -> Migration:
    """Raises `HypervisorRefused`, `NotSupported`; the machine then runs on where it was."""
    power.require_up(machine)
    here = _here(machine)
    there = next((one for one in machine.site.places if one.name == destination and one.name != here.name), None)
    if there is None:
        raise HypervisorRefused(f"{machine.site.host} has no place {destination!r} to bring {machine.name} to")
    if snapshots.names(machine):
        raise NotSupported("libvirt moves no machine that has snapshots")
    there.link.open()
    before = power.mark_of(machine)
    volumes = _new_volumes(machine) if with_storage else {}
    if volumes:
        power.change(machine, generation=before.generation + 1)
    began = time.monotonic()
    try:
        _carry(machine, there, volumes, timeout_s)
    except BaseException as reason:
        _stay(machine, there, before.generation if volumes else None, tuple(volumes.values()))
        if volumes and machine.site.tunnelled and isinstance(reason, LibvirtRefused) and _says_no_disks(reason):
            raise NotSupported(f"libvirt carries no disks through a tunnel: {reason.words}") from reason
        raise
    seconds = time.monotonic() - began
    for volume in volumes:
        machine.site.pool.delete(volume)
    for guest_port in before.ports:
        reach.endpoint(machine, guest_port)
    told = power.on_running(machine, "asking what it took", _completed)
    _log.info("machine.migrated", machine=machine.name, place=destination, seconds=seconds)
    return Migration(seconds, float(told.get("downtime", 0)), int(told.get("data_processed", 0)))


def _says_no_disks(reason: LibvirtRefused) -> bool:
    # Libvirt 9.0 has the destination offer the disks by NBD, and a tunnel tells it no address to offer them at.
    return reason.kind is Kind.UNSUPPORTED or "argument key 'host' must not have null value" in reason.words


def _new_volumes(machine: Machine) -> Mapping[str, str]:
    """By the volume of each disk that the machine writes: an empty one of the same size for the destination."""
    mark, pool = power.mark_of(machine), machine.site.pool
    parts = ("root", *(["data"] if mark.spec.data_disk_mib else []), *(f"plugged-{name}" for name in mark.plugged))
    found = {}
    for part in parts:
        old = machine.file(part, mark.generation)
        new = machine.file(part, mark.generation + 1)
        size = power.on_running(machine, "asking for a disk's size", partial(_size, pool.path(old)))
        pool.create(new, size, disk_format="qcow2")
        found[old] = new
    return found


def _size(path: str, domain: Any) -> int:
    return int(domain.blockInfo(path)[0])


def _carry(machine: Machine, there: Place, volumes: Mapping[str, str], timeout_s: float) -> None:
    sdk = _libvirt_sdk.load()
    flags = (
        sdk.VIR_MIGRATE_LIVE
        | sdk.VIR_MIGRATE_PEER2PEER
        | sdk.VIR_MIGRATE_PERSIST_DEST
        | sdk.VIR_MIGRATE_UNDEFINE_SOURCE
        # Both QEMUs are on one machine, whose cache of the disks is one.
        | sdk.VIR_MIGRATE_UNSAFE
        | (sdk.VIR_MIGRATE_NON_SHARED_DISK if volumes else 0)
        | (sdk.VIR_MIGRATE_TUNNELLED if machine.site.tunnelled else 0)
    )
    lines = () if machine.site.tunnelled else _sockets(there)
    paths = {machine.site.pool.path(old): machine.site.pool.path(new) for old, new in volumes.items()}

    def go(domain: Any) -> None:
        live = domain.XMLDesc(sdk.VIR_DOMAIN_XML_MIGRATABLE)
        kept = domain.XMLDesc(sdk.VIR_DOMAIN_XML_MIGRATABLE | sdk.VIR_DOMAIN_XML_INACTIVE)
        parameters = {
            sdk.VIR_MIGRATE_PARAM_DEST_XML: xml.with_other_disks(live, paths),
            sdk.VIR_MIGRATE_PARAM_PERSIST_XML: xml.with_other_disks(kept, paths),
        }
        if lines:
            parameters[sdk.VIR_MIGRATE_PARAM_URI] = f"unix://{lines[0]}"
        if lines and paths:
            parameters[sdk.VIR_MIGRATE_PARAM_DISKS_URI] = f"unix://{lines[1]}"
        domain.migrateToURI3(there.link.uri, parameters, flags)

    try:
        power.on_running(machine, "live migration", go, limit_s=timeout_s, again=False)
    finally:
        for line in lines:
            line.unlink(missing_ok=True)


def _sockets(there: Place) -> tuple[Path, Path]:
    """Short names beside the destination's own socket: one for memory, one for disks."""
    told = parse_qs(urlsplit(there.link.uri).query).get("socket", [""])[0]
    if not told:
        raise HostError(f"{there.link.uri} is no libvirtd of the lab's own, so memory cannot be carried there")
    token = os.urandom(4).hex()
    return Path(told).with_name(f"{token}-m"), Path(told).with_name(f"{token}-d")


def _stay(machine: Machine, there: Place, generation: int | None, volumes: Sequence[str]) -> None:
    """After a migration that failed: end what is under way, and take back what was prepared."""
    try:
        _end_job(machine)
        if there.link.ask("looking whether it arrived", lambda it: power.is_complete(it, machine.uuid)):
            return  # it is there: what failed came after
        if generation is not None:
            power.change(machine, generation=generation)
        for volume in volumes:
            machine.site.pool.delete(volume)
    except LabError as reason:
        _log.warning("migration.left-something", machine=machine.name, reason=reason)


def _end_job(machine: Machine) -> None:
    sdk = _libvirt_sdk.load()

    def end(domain: Any) -> None:
        if domain.isActive() and domain.jobInfo()[0] != sdk.VIR_DOMAIN_JOB_NONE:
            domain.abortJob()

    power.on_domain(machine, "ending the migration", end)


def _completed(domain: Any) -> Mapping[str, int]:
    found: Mapping[str, int] = domain.jobStats(_libvirt_sdk.load().VIR_DOMAIN_JOB_STATS_COMPLETED)
    return found


def _here(machine: Machine) -> Place:
    found = power.look(machine)
    if found.place is None:
        raise power.not_up(machine, found)
    return found.place
