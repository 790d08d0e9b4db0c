"""Images that the lab does not build: files of this machine and downloads, each verified against its sha256."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from lab.errors import ImageCorrupt, ImageError
from lab.inventory.models import FileSource, UrlSource
from lab.process import disk_full_or
from lab.provisioning import cache, fetch_http
from lab.provisioning.cache import Manifest, Progress

_QCOW2_MAGIC = b"QFI\xfb"
_EXTERNAL_DATA_FILE = 1 << 2


def entry_name(source: FileSource | UrlSource) -> str:
    """The name in the cache: a digest of all that the inventory says of the image."""
    if isinstance(source, FileSource):
        kind = "file"
        said = [
            str(source.file.absolute()),
            source.format,
            source.sha256,
            str(source.kernel or ""),
            str(source.initrd or ""),
            source.kernel_arguments,
        ]
    else:
        # By content and not by place: two mirrors of one image are one image.
        kind = "url"
        said = [source.format, source.sha256]
    return f"{kind}-{hashlib.sha256(chr(0).join(said).encode()).hexdigest()[:16]}"


def from_file(source: FileSource, work: Path, progress: Progress) -> Manifest:
    """Verify a file once; where it lies it stays. Raises `ImageCorrupt`, `ImageError`."""
    folder = _folder(work)
    progress(f"verifying {source.file}")
    disk = cache.describe(source.file.absolute(), folder=folder)
    if disk.sha256 != source.sha256:
        raise ImageCorrupt(
            f"{source.file} is not the file that the inventory means: sha256 is {disk.sha256}, "
            f"the inventory says {source.sha256}",
            hint="put the right file there, or correct its sha256 in the inventory",
        )
    check_format(source.file, source.format)
    return Manifest(
        name=source.file.name,
        arch="x86_64",
        disk_format=source.format,
        kernel_arguments=source.kernel_arguments,
        origin=f"the file {source.file}, verified by sha256",
        made=cache.now(),
        disk=disk,
        kernel=None if source.kernel is None else cache.describe(source.kernel.absolute(), folder=folder),
        initrd=None if source.initrd is None else cache.describe(source.initrd.absolute(), folder=folder),
    )


def from_url(source: UrlSource, work: Path, progress: Progress) -> Manifest:
    """Download and verify. What came before a cut stays in the cache for the next try.

    Raises `ImageCorrupt` for a wrong sum, `ImageError` for a server that does not deliver, `LabDiskFull`.
    """
    folder = _folder(work)
    name = f"disk.{source.format}"
    shown = without_secrets(source.url)
    parts = cache.root() / ".parts"
    try:
        parts.mkdir(exist_ok=True)
    except OSError as reason:
        raise disk_full_or(reason, f"making {parts}") from reason
    part = parts / f"{entry_name(source)}.part"
    authorization = None if source.authorization is None else source.authorization.reveal()
    fetch_http.download(fetch_http.Request(source.url, authorization), part, progress)
    progress(f"verifying {shown}")
    try:
        found = cache.sha256_of(part)
        if found != source.sha256:
            part.unlink()
            raise ImageCorrupt(
                f"{shown} is not what the inventory means: sha256 is {found}, the inventory says {source.sha256}",
                hint="correct the sha256 or the address in the inventory; the download was thrown away",
            )
        check_format(part, source.format)
        part.chmod(0o444)
        disk = part.rename(folder / name)
    except OSError as reason:
        raise disk_full_or(reason, f"keeping {part}") from reason
    return Manifest(
        name=Path(urlsplit(source.url).path).name or "image",
        arch="x86_64",
        disk_format=source.format,
        kernel_arguments="",
        origin=f"downloaded from {shown}, verified by sha256",
        made=cache.now(),
        disk=cache.describe(disk, folder=folder, sha256=source.sha256),
    )


def without_secrets(url: str) -> str:
    """An address as it may be shown: without user, password, query and fragment."""
    split = urlsplit(url)
    host = split.hostname or ""
    return urlunsplit((split.scheme, f"{host}:{split.port}" if split.port else host, split.path, "", ""))


def check_format(path: Path, declared: str) -> None:
    """Refuse a qcow2 that is none, and one that would make the hypervisor open other files of this machine.

    Format: docs/interop/qcow2.txt of QEMU. Raises `ImageError`.
    """
    if declared != "qcow2":
        return
    with path.open("rb") as content:
        header = content.read(80)
    if len(header) < 72 or header[:4] != _QCOW2_MAGIC:
        raise ImageError(f"{path} is not a qcow2 disk", hint="correct `format` in the inventory")
    version, backing_offset = struct.unpack_from(">IQ", header, 4)
    features = struct.unpack_from(">Q", header, 72)[0] if version >= 3 and len(header) >= 80 else 0
    if backing_offset or features & _EXTERNAL_DATA_FILE:
        raise ImageError(
            f"{path} refers to other files and is refused",
            hint="make it whole with `qemu-img convert -O qcow2`, and name the result",
        )


def _folder(work: Path) -> Path:
    folder = work / "image"
    try:
        folder.mkdir()
    except OSError as reason:
        raise disk_full_or(reason, f"making {folder}") from reason
    return folder
