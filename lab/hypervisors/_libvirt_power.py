"""Power of one libvirt machine: where its domain is, how it is, start, shutdown and end; its mark."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from lab import log
from lab.contracts import MachineState, Realness
from lab.errors import HypervisorRefused, LabDiskFull, LabError, MachineVanished
from lab.hypervisors import _libvirt_mark as marks
from lab.hypervisors import _libvirt_sdk
from lab.hypervisors import _libvirt_xml as xml
from lab.hypervisors._libvirt_domain import Network
from lab.hypervisors._libvirt_link import Link
from lab.hypervisors._libvirt_mark import Mark
from lab.hypervisors._libvirt_storage import Pool
from lab.hypervisors._reached_host import Maker

T = TypeVar("T")
START_S = 120.0
UP = (MachineState.RUNNING, MachineState.PAUSED)
_log = log.get(__name__)


@dataclass(frozen=True)
class Place:
    """A daemon that machines of a host may be in."""

    name: str
    link: Link
    is_used: Callable[[], bool]  # false while it was never started, so no machine is in it


@dataclass(frozen=True)
class Site:
    """What all machines of a host share."""

    host: str
    places: tuple[Place, ...]  # the first is where machines are made
    pool: Pool
    kind: str  # "qemu" or "kvm"
    network: Network
    is_here: bool  # the host is this machine, and this user may read its files
    ssh_port: int = 0
    tunnelled: bool = False  # memory that moves goes through the two daemons
    realness: Realness = Realness.REAL
    maker: Maker | None = None  # of a host that the lab made: guests are reached through it


@dataclass(frozen=True)
class Machine:
    """A machine by its identity; everything else is asked of libvirt."""

    site: Site
    uuid: str
    name: str

    def file(self, part: str, generation: int = 0) -> str:
        """Name of a volume of this machine."""
        return f"{self.uuid}.{generation}.{part}" if generation else f"{self.uuid}.{part}"

    def path(self, part: str, generation: int = 0) -> str:
        return self.site.pool.path(self.file(part, generation))


@dataclass(frozen=True)
class Look:
    """What one look at a machine told."""

    state: MachineState
    place: Place | None = None  # None when it was destroyed
    mark: Mark | None = None
    is_active: bool = False
    has_saved_state: bool = False
    no_space: bool = False


def look(machine: Machine) -> Look:
    """Where and how it is. Raises `HostError`, `LibvirtRefused`."""
    for place in machine.site.places:
        if not place.is_used():
            continue
        found = place.link.ask(f"looking at {machine.name}", lambda connection: _seen(connection, machine.uuid))
        if found is not None:
            mark, state, reason, active, saved, full = found
            told = _state(state, reason, mark.wanted)
            return Look(told, place, mark, is_active=active, has_saved_state=saved, no_space=full)
    return Look(MachineState.GONE)


def _seen(connection: Any, uuid: str) -> tuple[Mark, int, int, bool, bool, bool] | None:
    sdk = _libvirt_sdk.load()
    try:
        domain = connection.lookupByUUIDString(uuid)
        state, reason = domain.state()
        mark = marks.read(domain.metadata(sdk.VIR_DOMAIN_METADATA_ELEMENT, xml.NAMESPACE))
        active = bool(domain.isActive())
        if _is_arriving(sdk, domain):
            return None
        saved = not active and bool(domain.hasManagedSaveImage())
        errors = (
            domain.diskErrors() if state == sdk.VIR_DOMAIN_PAUSED and reason == sdk.VIR_DOMAIN_PAUSED_IOERROR else {}
        )
    except sdk.libvirtError as reason_:
        if reason_.get_error_code() in (sdk.VIR_ERR_NO_DOMAIN, sdk.VIR_ERR_NO_DOMAIN_METADATA):
            return None
        raise
    full = sdk.VIR_DOMAIN_DISK_ERROR_NO_SPACE in (errors or {}).values()
    return mark, state, reason, active, saved, full


def _is_arriving(sdk: Any, domain: Any) -> bool:
    """The incoming half of a migration is not the machine yet; all that the lab makes is persistent."""
    return not domain.isPersistent() and domain.state()[0] != sdk.VIR_DOMAIN_SHUTOFF


def is_complete(connection: Any, uuid: str) -> bool:
    """Whether a domain of that identity is there, and no half of one."""
    return _seen(connection, uuid) is not None


def _state(state: int, reason: int, wanted: str) -> MachineState:
    sdk = _libvirt_sdk.load()
    if state == sdk.VIR_DOMAIN_SHUTOFF:
        ended = (
            sdk.VIR_DOMAIN_SHUTOFF_DESTROYED,
            sdk.VIR_DOMAIN_SHUTOFF_CRASHED,
            sdk.VIR_DOMAIN_SHUTOFF_FAILED,
            sdk.VIR_DOMAIN_SHUTOFF_DAEMON,
        )
        return MachineState.GONE if wanted == "running" and reason in ended else MachineState.STOPPED
    if state == sdk.VIR_DOMAIN_CRASHED or (state == sdk.VIR_DOMAIN_PAUSED and reason == sdk.VIR_DOMAIN_PAUSED_CRASHED):
        return MachineState.CRASHED
    paused = (sdk.VIR_DOMAIN_PAUSED, sdk.VIR_DOMAIN_PMSUSPENDED)
    return MachineState.PAUSED if state in paused else MachineState.RUNNING


def state(machine: Machine) -> MachineState:
    """Raises `LabDiskFull` when QEMU stopped it because the host's disk is full."""
    found = look(machine)
    if found.no_space:
        raise LabDiskFull(
            f"the disk of {machine.name} cannot grow: the disk of {machine.site.host} is full; it is paused"
        )
    return found.state


def on_domain(
    machine: Machine, doing: str, function: Callable[[Any], T], *, limit_s: float = 60.0, again: bool = True
) -> T:
    """What `function` makes of the domain, running or not. Raises `HypervisorRefused` when it was destroyed."""
    found = look(machine)
    if found.place is None:
        raise not_up(machine, found)
    link = found.place.link
    what = f"{doing} of {machine.name}"
    return link.ask(what, lambda it: function(it.lookupByUUIDString(machine.uuid)), limit_s=limit_s, again=again)


def on_running(
    machine: Machine, doing: str, function: Callable[[Any], T], *, limit_s: float = 60.0, again: bool = True
) -> T:
    """The same of one that is up. Raises `MachineVanished`, `HypervisorRefused` when it is stopped."""
    require_up(machine)
    return on_domain(machine, doing, function, limit_s=limit_s, again=again)


def require_up(machine: Machine) -> Look:
    """Raises `MachineVanished`, or `HypervisorRefused` when the machine does not run."""
    found = look(machine)
    if found.state not in UP:
        raise not_up(machine, found)
    return found


def not_up(machine: Machine, found: Look) -> LabError:
    """The error for a machine that does not run."""
    if found.state is not MachineState.GONE:
        return HypervisorRefused(f"{machine.name} is {found.state}")
    if found.place is None:
        return HypervisorRefused(f"machine {machine.name!r} is gone: it was destroyed")
    return MachineVanished(
        f"{machine.name} ended unasked: libvirt says that its domain {machine.uuid} crashed or was destroyed",
        hint=f"look at the log of domain {marks.domain_of(machine.name)} at {machine.site.host}",
    )


def mark_of(machine: Machine) -> Mark:
    """Raises `HypervisorRefused` when it was destroyed."""
    found = look(machine)
    if found.mark is None:
        raise not_up(machine, found)
    return found.mark


def change(machine: Machine, **changes: Any) -> Mark:
    """Read the mark, replace parts of it, write it: for the domain that runs and for its next start."""
    mark = replace(mark_of(machine), **changes)
    document = xml.text(marks.element(mark, in_domain=False))
    sdk = _libvirt_sdk.load()

    def write(domain: Any) -> None:
        where = sdk.VIR_DOMAIN_AFFECT_CONFIG | (sdk.VIR_DOMAIN_AFFECT_LIVE if domain.isActive() else 0)
        domain.setMetadata(sdk.VIR_DOMAIN_METADATA_ELEMENT, document, xml.PREFIX, xml.NAMESPACE, where)

    on_domain(machine, "writing the mark", write)
    return mark


def events_of(machine: Machine) -> Link:
    """The link whose events tell of it."""
    found = look(machine)
    if found.place is None:
        raise not_up(machine, found)
    return found.place.link


# ---------------------------------------------------------------------------------------------------------
# Start and end


def start(machine: Machine) -> None:
    """Power on, or go on with the saved memory. Of a running machine, nothing.

    Raises `HypervisorRefused`, `LabBusy`, `HostError`.
    """
    found = look(machine)
    if found.state is MachineState.PAUSED:
        raise HypervisorRefused(f"{machine.name} is paused", hint="resume it")
    if found.place is None:
        raise not_up(machine, found)
    if found.is_active:
        return
    link = found.place.link
    counted = {"resets": 0, "fired": 0} if not found.has_saved_state else {}
    change(machine, wanted="running", **counted)
    link.events.take_resets(machine.uuid)
    link.events.take_fired(machine.uuid)

    def run(domain: Any) -> None:
        if not domain.isActive():  # asked again after a connection was lost
            domain.createWithFlags(0)

    try:
        on_domain(machine, "start", run, limit_s=START_S)
    except BaseException:
        if not look(machine).is_active:
            change(machine, wanted="stopped")
        raise
    _log.info("machine.started", machine=machine.name, host=machine.site.host)


def stop(machine: Machine, *, force: bool, timeout_s: float) -> None:
    """Press the power button and wait, or cut the power. Raises `WaitedTooLong` when the guest ignores it."""
    found = look(machine)
    if not force and found.state in UP and found.place is not None:
        _shut_down(machine, found.place.link, timeout_s)
    cut(machine)


def _shut_down(machine: Machine, link: Link, timeout_s: float) -> None:
    sdk = _libvirt_sdk.load()

    def press(domain: Any) -> None:
        if domain.state()[0] == sdk.VIR_DOMAIN_PAUSED:
            domain.resume()
        domain.shutdownFlags(sdk.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)

    on_running(machine, "shutdown", press)
    link.events.until(
        lambda: look(machine).state not in UP,
        what=f"{machine.name} to shut down after the power button",
        timeout_s=timeout_s,
    )
    ended = look(machine)
    if ended.state is MachineState.GONE:
        raise not_up(machine, ended)  # it was killed meanwhile, which is no shutdown


def cut(machine: Machine) -> None:
    """End the domain at once; the machine is stopped then. Safe to call twice."""
    found = look(machine)
    if found.mark is None:
        return
    if found.mark.wanted != "stopped":
        change(machine, wanted="stopped")

    def end(domain: Any) -> None:
        if domain.isActive():
            domain.destroyFlags(0)

    if found.is_active:
        on_domain(machine, "power cut", end, limit_s=START_S)


def remove(machine: Machine) -> None:
    """Cut the power and remove disks, then the domain, whose mark is what finds the rest. Safe to call twice."""
    cut(machine)
    machine.site.pool.delete_of(machine.uuid)
    sdk = _libvirt_sdk.load()
    with_it = (
        sdk.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
        | sdk.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
        | sdk.VIR_DOMAIN_UNDEFINE_NVRAM
    )
    for place in machine.site.places:
        if place.is_used():
            place.link.ask(f"removing {machine.name}", lambda it: _undefine(sdk, it, machine.uuid, with_it))


def _undefine(sdk: Any, connection: Any, uuid: str, flags: int) -> None:
    try:
        connection.lookupByUUIDString(uuid).undefineFlags(flags)
    except sdk.libvirtError as reason:
        if reason.get_error_code() != sdk.VIR_ERR_NO_DOMAIN:
            raise
