"""One libvirt host as a hypervisor: says what it is, makes machines and finds them again."""

from __future__ import annotations

import os
import uuid as uuids
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lab import log
from lab.contracts import Capability, HostFacts, Image, Machine, MachineSpec, Owner, Realness
from lab.errors import HypervisorRefused
from lab.hypervisors import _libvirt_capabilities as capabilities
from lab.hypervisors import _libvirt_daemon as daemons
from lab.hypervisors import _libvirt_domain as domains
from lab.hypervisors import _libvirt_mark as marks
from lab.hypervisors import _libvirt_power as power
from lab.hypervisors import _libvirt_sdk
from lab.hypervisors import _libvirt_ssh as ssh
from lab.hypervisors import _libvirt_xml as xml
from lab.hypervisors._libvirt_domain import Disk, Domain, Network
from lab.hypervisors._libvirt_link import Link
from lab.hypervisors._libvirt_machine import LibvirtMachine
from lab.hypervisors._libvirt_mark import Mark
from lab.hypervisors._libvirt_power import Place, Site
from lab.hypervisors._libvirt_storage import Pool
from lab.hypervisors._reached_host import Maker

if TYPE_CHECKING:
    from lab.hypervisors.libvirt import Settings

_FOLDER = "/var/lib/libvirt/images/interop-lab"
_log = log.get(__name__)


class LibvirtHost:
    """A connected libvirt."""

    def __init__(self, site: Site, offers: capabilities.Offers, settings: Settings) -> None:
        self._site, self._offers, self._settings = site, offers, settings

    @property
    def name(self) -> str:
        return self._site.host

    @property
    def link(self) -> Link:
        """The connection to where machines are made."""
        return self._site.places[0].link

    def facts(self) -> HostFacts:
        offers = self._offers
        return HostFacts(
            product="libvirt",
            version=offers.libvirt,
            build=f"libvirt {offers.libvirt}, QEMU {offers.qemu}",
            realness=self._site.realness,
            accelerator=offers.accelerator,
            cpu_model=self._settings.cpu_model or offers.cpu_model,
            details={
                "hypervisor": f"QEMU {offers.qemu}",
                "emulator": offers.emulator,
                "accelerator": offers.why,
                "uri": self.link.uri,
            },
        )

    def limits(self) -> Mapping[Capability, str]:
        return capabilities.limits(self._offers, self._site)

    def upload(self, image: Image) -> None:
        """Bring it into the host's pool, once per digest. Raises `ImageError`, `HostError`, `LabDiskFull`."""
        self._site.pool.bring(image)

    def create(self, spec: MachineSpec) -> Machine:
        """Raises `HypervisorRefused`, `ImageError`, `LabDiskFull`, `HostError`."""
        reason = domains.refuses(spec.profile) or capabilities.refuses(self._offers, spec.profile)
        if reason is not None:
            raise HypervisorRefused(reason)
        self._refuse_others(marks.domain_of(spec.name), spec.name)
        parts = self._site.pool.bring(spec.image)
        mark = Mark(spec, str(uuids.uuid4()), marks.controller())
        made = power.Machine(self._site, mark.uuid, spec.name)
        document = domains.document(self._domain(made, mark, (parts.kernel, parts.initrd)))
        self._define(document, spec.name)
        machine = LibvirtMachine(made, spec)
        try:
            self._make_disks(made, spec, (parts.disk, parts.disk_format))
        except BaseException:
            machine.destroy()
            raise
        return machine

    def _domain(self, made: power.Machine, mark: Mark, boot: tuple[str, str]) -> Domain:
        spec = mark.spec
        disks = [Disk("root", made.path("root"), "qcow2")]
        if spec.seed is not None:
            # libvirt has no SATA disk that cannot be written; the machine's own copy is all that a guest can spoil.
            disks.append(Disk("seed", made.path("seed"), "raw", is_read_only=spec.profile.disk != "sata"))
        if spec.data_disk_mib:
            disks.append(Disk("data", made.path("data"), "qcow2"))
        return Domain(
            mark=mark,
            kind="kvm" if self._offers.accelerator == "kvm" else "qemu",
            disks=tuple(disks),
            console=made.path("console"),
            kernel=boot[0],
            initrd=boot[1],
            cpu_model=self._settings.cpu_model,
            network=self._site.network,
        )

    def _define(self, document: str, name: str) -> None:
        sdk = _libvirt_sdk.load()

        def define(connection: Any) -> None:
            # Libvirt checks it against its own schema, and refuses a name that another UUID has.
            connection.defineXMLFlags(document, sdk.VIR_DOMAIN_DEFINE_VALIDATE)

        self.link.ask(f"defining {name}", define)

    def _make_disks(self, made: power.Machine, spec: MachineSpec, base: tuple[str, str]) -> None:
        pool = self._site.pool
        pool.create(made.file("root"), _virtual_size(spec.image), disk_format="qcow2", base=base)
        if spec.seed is not None:
            pool.create(made.file("seed"), spec.seed.stat().st_size, disk_format="raw")
            pool.upload(made.file("seed"), spec.seed)
        if spec.data_disk_mib:
            pool.create(made.file("data"), spec.data_disk_mib << 20, disk_format="qcow2")

    def _refuse_others(self, domain: str, name: str) -> None:
        """A domain of that name that bears no mark of this controller is somebody else's."""
        for place in self._site.places:
            if not place.is_used():
                continue
            found = place.link.ask("looking for the name", lambda it: _named(it, domain))
            if found is None:
                continue
            if found:
                raise HypervisorRefused(f"a machine {name!r} exists already", hint="destroy it, or run lab reap")
            raise HypervisorRefused(
                f"{self.name} has a domain {domain!r} that is not the lab's; it was not touched",
                hint="rename or remove that domain",
            )

    def machines(self) -> Sequence[tuple[Owner, Machine]]:
        found: dict[str, tuple[Owner, Machine]] = {}
        for place in self._site.places:
            if not place.is_used():
                continue
            for document in place.link.ask("listing machines", _documents):
                try:
                    mark = marks.read(document)
                except (ValueError, KeyError, TypeError, AttributeError, HypervisorRefused) as reason:
                    _log.warning("machine.unreadable", host=self.name, reason=reason)
                    continue
                if mark.controller == marks.controller():
                    made = power.Machine(self._site, mark.uuid, mark.spec.name)
                    found[mark.uuid] = (mark.spec.owner, LibvirtMachine(made, mark.spec))
        return sorted(found.values(), key=lambda entry: entry[1].name)


def _documents(connection: Any) -> list[str]:
    sdk = _libvirt_sdk.load()
    found = []
    for domain in connection.listAllDomains(0):
        try:
            found.append(domain.metadata(sdk.VIR_DOMAIN_METADATA_ELEMENT, xml.NAMESPACE))
        except sdk.libvirtError as reason:
            if reason.get_error_code() not in (sdk.VIR_ERR_NO_DOMAIN_METADATA, sdk.VIR_ERR_NO_DOMAIN):
                raise
    return found


def _named(connection: Any, domain: str) -> bool | None:
    """Whether the domain of that name is the lab's; `None` when there is none."""
    sdk = _libvirt_sdk.load()
    try:
        found = connection.lookupByName(domain)
    except sdk.libvirtError as reason:
        if reason.get_error_code() != sdk.VIR_ERR_NO_DOMAIN:
            raise
        return None
    try:
        mark = marks.read(found.metadata(sdk.VIR_DOMAIN_METADATA_ELEMENT, xml.NAMESPACE))
    except (sdk.libvirtError, ValueError, KeyError, TypeError, AttributeError, HypervisorRefused):
        return False
    return mark.controller == marks.controller()


def _virtual_size(image: Image) -> int:
    if image.disk_format == "qcow2":
        with image.disk.open("rb") as disk:
            return int.from_bytes(disk.read(32)[24:32], "big")  # QEMU's docs/interop/qcow2.txt
    return image.disk.stat().st_size


@contextmanager
def connect_to(
    name: str, settings: Settings, *, realness: Realness = Realness.REAL, maker: Maker | None = None
) -> Iterator[LibvirtHost]:
    """Connect and look what the host can do. Raises `HostError`, `MissingTool`, `MissingExtra`."""
    marks.domain_of(name)  # a host's name becomes a folder's
    places, folder, is_here = _places(name, settings)
    kind, _, network = settings.network.partition(":")
    try:
        places[0].link.open()
        offers = capabilities.offers(
            places[0].link, settings.accelerator, is_this_machine=not settings.uri.startswith("qemu+ssh")
        )
        site = Site(
            host=name,
            places=places,
            pool=Pool(places[0].link, folder, is_here=is_here, maker=maker),
            kind="kvm" if offers.accelerator == "kvm" else "qemu",
            network=Network(kind, network),
            is_here=is_here,
            ssh_port=settings.ssh_port,
            tunnelled=settings.migration == "tunnelled",
            maker=maker,
            realness=realness,
        )
        yield LibvirtHost(site, offers, settings)
    finally:
        for place in places:
            place.link.close()


def _places(name: str, settings: Settings) -> tuple[tuple[Place, ...], str, bool]:
    """The daemons, the folder for disks, and whether this user may read it."""
    if not settings.uri:
        own = daemons.daemons_of(name)
        folder = settings.folder or str(daemons.folder_of(name) / "disks")
        found = tuple(Place(one.place, Link(name, one.uri, one.ensure), one.is_there) for one in own)
        # The first is asked first, and is started by that.
        return (Place(found[0].name, found[0].link, _always), *found[1:]), folder, True
    uri = ssh.uri(name, settings) if settings.uri.startswith("qemu+ssh") else settings.uri
    is_here = settings.uri.startswith("qemu:///session") and os.geteuid() != 0
    return (Place("here", Link(name, uri), _always),), settings.folder or _FOLDER, is_here


def _always() -> bool:
    return True
