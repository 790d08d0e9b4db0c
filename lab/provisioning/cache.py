"""The cache of images: one folder for each, made elsewhere and renamed into place, checked each time it is used.

images/<name>-<key>/image.json  disk.raw  vmlinuz  initrd  hypervisor
images/.making/<name>-<key>.<pid>.<start>/   what somebody makes now, or left when he was killed
images/.locks/<name>-<key>.lock
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from lab import locations, log, process
from lab.contracts import Image
from lab.errors import CommandFailed, ImageCorrupt, ImageError, LabBusy, LabError
from lab.process import disk_full_or

logger = log.get(__name__)

Progress = Callable[[str], None]
MANIFEST = "image.json"
_PATIENCE_S = 3600.0
_ROLES = ("disk", "kernel", "initrd", "hypervisor")  # of files, in a manifest
_OWNED = re.compile(r".*\.(\d+)\.(\d+)")


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class CachedFile(_Model):
    """One file of an image, and how it looked when its sum was taken."""

    path: str  # relative to the image's folder, or absolute when the file lies elsewhere
    sha256: str
    size: int
    mtime_ns: int
    inode: int


class Manifest(_Model):
    """`image.json`: everything that is known of an image in the cache."""

    schema_: Literal[1] = 1
    name: str
    arch: str
    disk_format: Literal["raw", "qcow2"]
    kernel_arguments: str
    origin: str
    made: str  # time, ISO 8601
    disk: CachedFile
    kernel: CachedFile | None = None
    initrd: CachedFile | None = None
    hypervisor: CachedFile | None = None
    packages: dict[str, str] = {}

    def files(self) -> tuple[CachedFile, ...]:
        return tuple(file for file in (self.disk, self.kernel, self.initrd, self.hypervisor) if file is not None)

    @property
    def digest(self) -> str:
        """Over content alone: not over names, dates or places."""
        content = {
            "arch": self.arch,
            "disk_format": self.disk_format,
            "kernel_arguments": self.kernel_arguments,
            **{role: getattr(self, role).sha256 for role in _ROLES if getattr(self, role)},
        }
        return f"sha256:{hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()}"

    def image(self, folder: Path) -> Image:
        return Image(
            name=self.name,
            digest=self.digest,
            disk=folder / self.disk.path,
            disk_format=self.disk_format,
            kernel=None if self.kernel is None else folder / self.kernel.path,
            initrd=None if self.initrd is None else folder / self.initrd.path,
            hypervisor=None if self.hypervisor is None else folder / self.hypervisor.path,
            kernel_arguments=self.kernel_arguments,
            arch=self.arch,
            origin=self.origin,
        )


def root() -> Path:
    """Where the cached images are."""
    folder = locations.cache() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def now() -> str:
    """The present time for a manifest."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def describe(path: Path, *, folder: Path, sha256: str = "") -> CachedFile:
    """What a manifest keeps of a file. Raises `ImageError` when it cannot be read."""
    try:
        # Before the sum is taken, so that a change meanwhile is seen by the next check.
        about = path.stat()
        sha256 = sha256 or sha256_of(path)
    except OSError as reason:
        raise ImageError(f"{path}: {reason.strerror}") from reason
    inside = path.is_relative_to(folder)
    return CachedFile(
        path=path.relative_to(folder).as_posix() if inside else str(path),
        sha256=sha256,
        size=about.st_size,
        mtime_ns=about.st_mtime_ns,
        inode=about.st_ino,
    )


def sha256_of(path: Path) -> str:
    """Hex digits of a file's SHA-256."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Put `image.json` there, whole or not at all. Raises `LabDiskFull`."""
    part = folder / f"{MANIFEST}.part"
    try:
        part.write_text(manifest.model_dump_json(indent=1) + "\n")
        part.replace(folder / MANIFEST)
    except OSError as reason:
        part.unlink(missing_ok=True)
        raise disk_full_or(reason, f"writing {folder / MANIFEST}") from reason


def read_manifest(folder: Path) -> Manifest | None:
    """What `image.json` says, `None` where there is none. Raises `ImageCorrupt`."""
    path = folder / MANIFEST
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as reason:
        problem = reason.errors()[0]["msg"]
        raise ImageCorrupt(f"{path} is damaged: {problem}", hint=f"delete {folder}; the lab makes it again") from None
    except OSError as reason:
        raise ImageError(f"{path}: {reason.strerror}") from reason


def check(folder: Path, manifest: Manifest, *, fully: bool = False) -> Manifest:
    """Hold an image's files against its manifest: by size and time, and by sum where those differ or when `fully`.

    Returns the manifest to go on with (new times when only those had changed). Raises `ImageCorrupt`.
    """
    seen: dict[str, CachedFile] = {}
    for file in manifest.files():
        path = folder / file.path
        try:
            about = path.stat()
        except OSError as reason:
            raise ImageCorrupt(f"{path}: {reason.strerror}", hint=_remedy(path, folder)) from None
        same = (about.st_size, about.st_mtime_ns, about.st_ino) == (file.size, file.mtime_ns, file.inode)
        if same and not fully:
            continue
        if about.st_size != file.size:
            raise ImageCorrupt(
                f"{path} has {about.st_size} bytes, it should have {file.size}", hint=_remedy(path, folder)
            )
        found = describe(path, folder=folder)
        if found.sha256 != file.sha256:
            raise ImageCorrupt(
                f"{path} is not what it was: sha256 is {found.sha256}, it should be {file.sha256}",
                hint=_remedy(path, folder),
            )
        seen[file.path] = found
    if not seen:
        return manifest
    roles = {
        role: seen[file.path] for role in _ROLES if (file := getattr(manifest, role)) is not None and file.path in seen
    }
    renewed = manifest.model_copy(update=roles)
    if renewed != manifest:
        write_manifest(renewed, folder)
    return renewed


def _remedy(path: Path, folder: Path) -> str:
    if path.is_relative_to(folder):
        return f"delete {folder}; the lab makes it again"
    return "put the right file back, or correct its sha256 in the inventory"


@contextmanager
def held(name: str, progress: Progress) -> Iterator[None]:
    """Be the only process of this machine that makes that image. Raises `LabBusy` after an hour."""
    from filelock import FileLock, Timeout

    locks = root() / ".locks"
    locks.mkdir(exist_ok=True)
    lock = FileLock(locks / f"{name}.lock")
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            progress(f"another process makes {name}; waiting for it")
            lock.acquire(timeout=_PATIENCE_S)
    except Timeout:
        raise LabBusy(
            f"another process holds {lock.lock_file} for more than {_PATIENCE_S / 60:.0f} minutes",
            hint="look for it with `fuser`, and end it if it hangs",
        ) from None
    except OSError as reason:
        raise disk_full_or(reason, f"locking {lock.lock_file}") from reason
    try:
        yield
    finally:
        lock.release()


@contextmanager
def making(name: str) -> Iterator[Path]:
    """An empty folder to make `name` in, gone afterwards whatever happens. Removes what dead processes left."""
    sweep()
    folder = root() / ".making"
    work = folder / f"{name}.{os.getpid()}.{process.start_time(os.getpid())}"
    try:
        remove(work)
        work.mkdir(parents=True)
    except OSError as reason:
        raise disk_full_or(reason, f"making {work}") from reason
    try:
        yield work
    finally:
        remove(work)


def sweep() -> None:
    """Remove what processes that are gone were making."""
    for leftover in (root() / ".making").glob("*"):
        owner = _OWNED.fullmatch(leftover.name)
        if owner and not process.is_alive(int(owner[1]), int(owner[2])):
            logger.info("image.leftover-removed", path=leftover)
            remove(leftover)


def remove(folder: Path) -> None:
    """Delete a folder, never crossing into another file system: a killed build may have left mounts in it."""
    if not folder.exists():
        return
    try:
        process.check(["rm", "-rf", "--one-file-system", "--", folder], timeout_s=300)
    except LabError as reason:
        logger.warning("image.not-removed", path=folder, why=str(reason))


def publish(work: Path, name: str) -> Path:
    """Rename what was made to its final place; what was there goes. Returns that place."""
    final = root() / name
    try:
        if final.exists():
            set_aside(final)
        work.rename(final)
    except OSError as reason:
        raise disk_full_or(reason, f"moving {work} to {final}") from reason
    return final


def set_aside(folder: Path) -> Path:
    """Take a damaged image out of use but keep it to be looked at, one for each name. Returns where it is now."""
    aside = root() / ".damaged" / folder.name
    try:
        aside.parent.mkdir(exist_ok=True)
        remove(aside)
        folder.rename(aside)
    except OSError as reason:
        raise CommandFailed(f"{folder} is damaged and cannot be moved away: {reason}") from reason
    return aside


def entries() -> Iterator[tuple[Path, Manifest]]:
    """Every image in the cache whose manifest can be read."""
    for folder in sorted(root().iterdir()):
        if folder.name.startswith(".") or not folder.is_dir():
            continue
        try:
            manifest = read_manifest(folder)
        except ImageError as reason:
            logger.warning("image.unreadable", path=folder, why=str(reason))
            continue
        if manifest is not None:
            yield folder, manifest


def used_bytes(folder: Path) -> int:
    """Bytes of this machine's disk that a folder occupies (holes in files cost nothing)."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
