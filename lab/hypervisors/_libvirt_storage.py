"""Disks of a libvirt host: one storage pool of the lab's, volumes in it, each named by what it is or whose it is.

Bytes go by libvirt's streams, so that it is the same for a host far away; on this machine an image is copied.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import log, process
from lab.contracts import Image
from lab.errors import ImageError
from lab.hypervisors import _libvirt_sdk
from lab.hypervisors import _libvirt_xml as xml
from lab.hypervisors._libvirt_link import Kind, LibvirtRefused, Link
from lab.hypervisors._reached_host import Maker

POOL = "interop-lab"
COPY_S = 1800.0
_CHUNK = 1 << 18
_log = log.get(__name__)


@dataclass(frozen=True)
class Parts:
    """Paths at the host of what a machine starts from."""

    disk: str
    disk_format: str
    kernel: str
    initrd: str


class Pool:
    """The lab's pool of a host."""

    def __init__(self, link: Link, folder: str, *, is_here: bool, maker: Maker | None = None) -> None:
        self.link, self.folder, self._is_here, self._maker = link, folder, is_here, maker

    def ask(self, doing: str, function: Any, *, limit_s: float = 120.0) -> Any:
        """What `function` makes of the pool, which is there and active then."""
        return self.link.ask(doing, lambda connection: function(self._found(connection)), limit_s=limit_s)

    def path(self, name: str) -> str:
        return f"{self.folder}/{name}"

    def bring(self, image: Image) -> Parts:
        """Make sure that its files are there, once per digest. Raises `ImageError`, `LabDiskFull`, `HostError`."""
        digest = image.digest.partition(":")[2]
        known = {"disk": image.disk, "kernel": image.kernel, "initrd": image.initrd}
        names = {}
        for part, path in known.items():
            if path is None:
                continue
            if not path.is_file():
                raise ImageError(f"image {image.name}: {path} is not there", hint="build or fetch the image again")
            if self._maker is not None:
                continue
            names[part] = f"image-{digest}-{part}"
            self._bring(names[part], path, image.disk_format if part == "disk" else "raw")
        if self._maker is not None:
            return _lent(self._maker, image)
        found = {part: self.path(name) for part, name in names.items()}
        return Parts(found["disk"], image.disk_format, found.get("kernel", ""), found.get("initrd", ""))

    def _bring(self, name: str, path: Path, disk_format: str) -> None:
        whole = f"{name}.whole"
        if self.ask("looking for an image", lambda pool: _has(pool, whole)):
            return
        if self._is_here:
            self.ask("making the pool", lambda pool: pool.name())  # makes its folder
            draft = Path(self.path(f".{name}.{os.getpid()}"))
            process.check(["cp", "--sparse=always", "--reflink=auto", path, draft], timeout_s=COPY_S)
            draft.replace(self.path(name))
            self.ask("looking what is new in the pool", lambda pool: pool.refresh())
        else:
            self.delete(name)  # half of one that was interrupted
            self.create(name, path.stat().st_size, disk_format="raw")
            self.upload(name, path)
        # Whoever dies before this line leaves nothing that is believed.
        self.create(whole, 1, disk_format="raw")
        del disk_format
        _log.info("libvirt.image", host=self.link.host, volume=name)

    def create(self, name: str, size: int, *, disk_format: str, base: tuple[str, str] | None = None) -> None:
        """A new volume of `size` bytes; `base`: path and format of what it is a layer on. One that is there stays."""
        backing: tuple[xml.Element, ...] = ()
        if base is not None:
            backing = (
                xml.element("backingStore", xml.element("path", text=base[0]), xml.element("format", type_=base[1])),
            )
        wanted = xml.element(
            "volume",
            xml.element("name", text=name),
            xml.element("capacity", unit="bytes", text=size),
            xml.element("allocation", unit="bytes", text=0),
            xml.element("target", xml.element("format", type_=disk_format)),
            *backing,
        )
        try:
            self.ask(f"making volume {name}", lambda pool: pool.createXML(xml.text(wanted), 0))
        except LibvirtRefused as reason:
            if reason.kind is not Kind.VOLUME_EXISTS:
                raise

    def upload(self, name: str, path: Path) -> None:
        """Fill a volume with a file of this machine."""

        def send(pool: Any) -> None:
            stream = pool.connect().newStream(0)
            pool.storageVolLookupByName(name).upload(stream, 0, path.stat().st_size, 0)
            with path.open("rb") as file:
                stream.sendAll(lambda _stream, count, source: source.read(min(count, _CHUNK)), file)
            stream.finish()

        self.ask(f"filling volume {name}", send, limit_s=COPY_S)

    def download(self, name: str, offset: int, length: int) -> bytes:
        """A part of a volume; less when it is shorter, nothing when it is not there."""

        def fetch(pool: Any) -> bytes:
            volume = _volume(pool, name)
            if volume is None:
                return b""
            held = max(0, min(length, volume.info()[1] - offset))
            if not held:
                return b""
            stream, parts = pool.connect().newStream(0), bytearray()
            volume.download(stream, offset, held, 0)
            stream.recvAll(lambda _stream, data, kept: kept.extend(data), parts)
            stream.finish()
            return bytes(parts)

        return bytes(self.ask(f"reading volume {name}", fetch))

    def sizes(self, beginning: str) -> Mapping[str, int]:
        """Bytes of the volumes with such names, as their files have them now."""

        def look(pool: Any) -> Mapping[str, int]:
            pool.refresh(0)
            found = {volume.name(): volume for volume in pool.listAllVolumes(0)}
            return {name: int(volume.info()[1]) for name, volume in found.items() if name.startswith(beginning)}

        told: Mapping[str, int] = self.ask(f"looking at volumes {beginning}", look)
        return told

    def allocated(self, name: str) -> int:
        """Bytes of the host's storage that a volume occupies. Raises `LibvirtRefused` when it is not there."""
        return int(self.ask(f"looking at volume {name}", lambda pool: pool.storageVolLookupByName(name).info()[2]))

    def resize(self, name: str, size: int) -> None:
        self.ask(f"resizing volume {name}", lambda pool: pool.storageVolLookupByName(name).resize(size, 0))

    def delete(self, name: str) -> None:
        """Safe to call twice."""

        def remove(pool: Any) -> None:
            volume = _volume(pool, name)
            if volume is not None:
                volume.delete(0)

        self.ask(f"removing volume {name}", remove)

    def delete_of(self, uuid: str) -> None:
        """Remove everything that a machine has there."""

        def remove(pool: Any) -> None:
            pool.refresh(0)
            for volume in pool.listAllVolumes(0):
                if volume.name().startswith(uuid):
                    volume.delete(0)

        self.ask("removing a machine's volumes", remove)

    def _found(self, connection: Any) -> Any:
        sdk = _libvirt_sdk.load()
        try:
            pool = connection.storagePoolLookupByName(POOL)
        except sdk.libvirtError as reason:
            if reason.get_error_code() != sdk.VIR_ERR_NO_STORAGE_POOL:
                raise
            pool = _defined(sdk, connection, self.folder)
        if not pool.isActive():
            try:
                pool.create(sdk.VIR_STORAGE_POOL_CREATE_WITH_BUILD)
            except sdk.libvirtError:
                if not pool.isActive():  # somebody else was faster
                    raise
        return pool


def _lent(maker: Maker, image: Image) -> Parts:
    """Plugged into the made host as disks, which takes no time; QEMU reads kernels from files only."""
    kernel = "" if image.kernel is None else maker.keep(image.kernel)
    initrd = "" if image.initrd is None else maker.keep(image.initrd)
    return Parts(maker.lend(image.disk, image.disk_format), "raw", kernel, initrd)


def _defined(sdk: Any, connection: Any, folder: str) -> Any:
    target = xml.element("target", xml.element("path", text=folder))
    wanted = xml.element("pool", xml.element("name", text=POOL), target, type_="dir")
    try:
        return connection.storagePoolDefineXML(xml.text(wanted), 0)
    except sdk.libvirtError:
        return connection.storagePoolLookupByName(POOL)  # somebody else was faster


def _volume(pool: Any, name: str) -> Any:
    sdk = _libvirt_sdk.load()
    try:
        return pool.storageVolLookupByName(name)
    except sdk.libvirtError as reason:
        if reason.get_error_code() != sdk.VIR_ERR_NO_STORAGE_VOL:
            raise
        return None


def _has(pool: Any, name: str) -> bool:
    return _volume(pool, name) is not None
