"""One Xen host as a hypervisor: makes machines and finds them again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from lab import log
from lab.contracts import Capability, HostFacts, Image, Machine, MachineSpec, Owner
from lab.errors import HostError, HypervisorRefused, LabError
from lab.hypervisors import _xen_device_model as device_model
from lab.hypervisors import _xen_disks as disks
from lab.hypervisors import _xen_domains as domains
from lab.hypervisors import _xen_images as images
from lab.hypervisors import _xen_power as power
from lab.hypervisors import _xen_screen as screen
from lab.hypervisors import _xen_store as store
from lab.hypervisors import _xen_toolstack as toolstacks
from lab.hypervisors._xen_config import Kind
from lab.hypervisors._xen_dom0 import Dom0
from lab.hypervisors._xen_link import Link, said
from lab.hypervisors._xen_machine import XenMachine
from lab.hypervisors._xen_profile import NO_SECURE_BOOT, refuses
from lab.hypervisors._xen_sites import Site
from lab.hypervisors._xen_store import Mark
from lab.hypervisors._xen_toolstack import Can, Toolstack

_log = log.get(__name__)
_NO_PEERS = "The inventory names no other Xen host that machines of this one could be brought to (lab_peers)"
_NO_AGENT = "Xen has no agent of its own in a guest, only keys in its xenstore"
_LIMITS: Mapping[Capability, str] = {
    Capability.WARM_CLONES: "A saved domain of Xen keeps its address on the bridge, so two copies cannot run together",
    Capability.WATCHDOG: "Xen's watchdog ends a domain, and none only counts",
    Capability.TPM: "Xen's vTPM is a domain of its own (vtpm-stubdom), which the lab does not make",
    Capability.SECURE_BOOT: NO_SECURE_BOOT,
    Capability.NETWORK_BOOT: "PV and PVH have no firmware, and that of HVM drives no card of Xen's own",
    Capability.GUEST_COMMANDS: _NO_AGENT,
    Capability.GUEST_FILES: _NO_AGENT,
    Capability.GUEST_ADDRESSES: _NO_AGENT,
    Capability.FILESYSTEM_FREEZE: _NO_AGENT,
    Capability.VSOCK: "Xen has no sockets between host and guest that Linux knows as vsock",
}
# Every process costs a tenth of a second where a dom0 is emulated, so the shell does what it can by itself.
_EXAMINE = (
    """# look at a host
xl info || exit 3
printf '\\0'
for tool in xenstore-read xenstore-write xenstore-list xenstore-rm losetup flock sha256sum gzip truncate ip; do
  command -v "$tool" >/dev/null || echo "no $tool"
done
case $(cp --help 2>&1) in *--reflink*) ;; *) echo "no GNU cp" ;; esac
# xenconsoled writes what guests say only when it is told to. `read` leaves out the NULs between the words.
found=
for file in /proc/[0-9]*/cmdline; do
  line=
  { read -r line || :; } 2>/dev/null <"$file"
  case $line in */xenconsoled*--log=guest* | */xenconsoled*--log=all*) found=yes ;; esac
  case $line in */xenconsoled*--logguest* | */xenconsoled*--logall*) found=yes ;; esac
done
[ -n "$found" ] || echo "no console log"
[ -d "$1" ] || mkdir -p "$1" || echo "no $1"
[ -d "/sys/class/net/$2/bridge" ] || [ -n "$(ip -o link show dev "$2" type bridge 2>/dev/null)" ] || echo "no bridge $2"
"""
    + disks.EXAMINE
    + device_model.EXAMINE
)
_REMEDIES = {
    "no console log": "set XENCONSOLED_TRACE=guest in the dom0 (/etc/default/xen on Debian, /etc/sysconfig/xencommons "
    "elsewhere) and restart xenconsoled",
}


@dataclass(frozen=True)
class Places:
    """Where things are in a dom0."""

    folder: str = store.FOLDER  # the lab's own
    logs: str = store.LOGS  # of xl and xenconsoled


@dataclass(frozen=True)
class Found:
    """What an examination of a dom0 told."""

    toolstack: Toolstack
    overlays: bool  # its kernel makes overlays, see `_xen_disks`


class XenHost:
    """A dom0 that is logged in to."""

    def __init__(self, link: Link, found: Found, places: Places) -> None:
        self.link, self.toolstack, self.overlays = link, found.toolstack, found.overlays
        self._folder, self._logs = places.folder, places.logs
        self.site = Site(link, found.toolstack, places.folder, places.logs, found.overlays)
        self._peers: list[XenHost] = []  # that the inventory names
        self._missing: dict[str, str] = {}

    @property
    def name(self) -> str:
        return self.link.host

    def facts(self) -> HostFacts:
        details = dict(self.toolstack.details)
        if not self.toolstack.is_known():
            newest = ".".join(map(str, toolstacks.NEWEST))
            details["toolstack"] = f"newer than {newest}, the last release whose differences the lab knows"
        return HostFacts(
            product="Xen",
            version=self.toolstack.full,
            build=details.get("xen_changeset", "") or self.toolstack.full,
            realness=self.link.dom0.realness,
            details=details,
        )

    def limits(self) -> Mapping[Capability, str]:
        lacks = self.toolstack.lacks(Can.SAVE_PAUSED)
        limits = dict(_LIMITS)
        pv, pvh = self.toolstack.moves_no_pv(), self.toolstack.runs_pvh()
        if pv is not None and pvh is not None:
            limits[Capability.LIVE_MIGRATION] = f"{pv}; and {pvh}"
        hvm = self.toolstack.runs_hvm()
        if hvm is not None:
            limits[Capability.SCREENSHOTS] = f"{screen.NO_DISPLAY}, and there is no HVM here: {hvm}"
        if not self.site.peers:
            limits[Capability.COLD_MIGRATION] = "; ".join(self._missing.values()) or _NO_PEERS
        return {**limits, Capability.SNAPSHOTS: lacks} if lacks else limits

    def meet(self, other: XenHost) -> None:
        """Let machines move between this host and that one."""
        self.site.meet(other.site)

    def take_along(self, peer: XenHost) -> None:
        """Let machines move to a host that is there for this one alone; what is there counts as this one's."""
        self.meet(peer)
        self._peers.append(peer)

    def misses(self, peer: str, reason: LabError) -> None:
        """A host that machines could have been brought to cannot be had."""
        _log.warning("xen.peer-missing", host=self.name, peer=peer, why=reason.what)
        self._missing[peer] = f"The other host {peer} cannot be had: {reason.what}"

    def upload(self, image: Image) -> None:
        """Bring it to the dom0, once per digest. Raises `ImageError`, `HostError`."""
        images.bring(self.link, self._folder, image, Kind.PV)

    def create(self, spec: MachineSpec) -> Machine:
        """Raises `HypervisorRefused`, `ImageError`, `LabBusy`, `HostError`."""
        reason = refuses(spec.profile) or power.lacks(self.toolstack, spec)
        if reason is not None:
            raise HypervisorRefused(reason)
        folder = store.folder_of(self._folder, spec.name, self._logs)
        self._refuse_others(spec.name)
        parts = images.bring(self.link, self._folder, spec.image, power.kind_of(spec.profile.chipset))
        wanted = Mark(spec, store.new_uuid(), "", store.controller(), overlay=self.overlays)
        mark = store.claim(self.link, folder, wanted)
        machine = power.Machine(self.link, self.toolstack, mark, folder)
        try:
            power.configuration(machine)  # refuses what cannot be written before anything large is copied
            self._make_disks(machine, parts.disk)
        except BaseException:
            XenMachine(machine, self.site).destroy()
            raise
        return XenMachine(machine, self.site)

    def _make_disks(self, machine: power.Machine, image: str) -> None:
        spec, path = machine.mark.spec, machine.folder.path
        seed = b"" if spec.seed is None else spec.seed.read_bytes()
        words = (str(spec.data_disk_mib), str(len(seed)), "overlay" if machine.mark.overlay else "copy")
        result = self.link.sh(disks.MAKE, path, image, *words, stdin=seed, timeout_s=disks.COPY_S)
        if result.status != 0:
            raise store.trouble(self.link, f"making the disks of {spec.name}", said(result))

    def _refuse_others(self, name: str) -> None:
        """A domain of that name that no mark of ours knows is somebody else's."""
        result = self.link.run(("xl", "list", "-l"))
        if result.status != 0:
            raise HostError(f"{self.name}: xl list -l does not work: {said(result)}")
        found = domains.named(result.stdout.decode(errors="replace"), self.name)
        same = next((one for one in found if one.name == store.domain_of(name)), None)
        if same is not None:
            marks = {mark.uuid for mark in store.every(self.link, self._folder)}
            whose = "is the lab's" if same.uuid in marks else "is not the lab's; it was not touched"
            raise HypervisorRefused(
                f"{self.name} has a domain {same.name!r} already, which {whose}", hint="destroy it, or run lab reap"
            )

    def machines(self) -> Sequence[tuple[Owner, Machine]]:
        here: list[tuple[Owner, Machine]]
        here = [(mark.spec.owner, self._machine(mark)) for mark in store.every(self.link, self._folder)]
        return [*here, *(found for peer in self._peers for found in peer.machines())]

    def _machine(self, mark: Mark) -> XenMachine:
        folder = store.folder_of(self._folder, mark.spec.name, self._logs)
        return XenMachine(power.Machine(self.link, self.toolstack, mark, folder), self.site)


DEFAULT = Places()


@contextmanager
def connect_to(name: str, dom0: Dom0, places: Places = DEFAULT) -> Iterator[XenHost]:
    """Log in and look whether the host can be used. Raises `HostError`, `MachineVanished` of a made host."""
    link = Link(name, dom0)
    try:
        link.open()
        yield XenHost(link, _examined(link, places.folder), places)
    finally:
        link.close()


def _examined(link: Link, folder: str) -> Found:
    result = link.sh(_EXAMINE, folder, link.dom0.bridge)
    if result.status == 3 or result.status == 127:
        raise HostError(
            f"{link.host}: xl info does not work: {said(result)}",
            hint="is it the dom0 of a Xen, may this user run xl, and does xenstored run?",
        )
    info, _, lacking = result.stdout.decode(errors="replace").partition("\0")
    found = toolstacks.read(info, link.host)
    told = [line.strip() for line in lacking.splitlines()]
    complaints = [line for line in told if line.startswith("no ")]
    if complaints:
        remedies = [_REMEDIES[one] for one in complaints if one in _REMEDIES]
        raise HostError(
            f"{link.host}: the dom0 lacks what the lab needs: {', '.join(complaints)}", hint="; ".join(remedies)
        )
    return Found(device_model.told(found, told), disks.HAS in told)
