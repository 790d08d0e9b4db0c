"""Images in the dom0: brought there once per digest, lent by whoever made the host or copied over SSH."""

from __future__ import annotations

import gzip
import hashlib
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from lab import locations, log, process
from lab.contracts import Image
from lab.errors import HostError, HypervisorRefused, ImageError
from lab.hypervisors import _xen_kernel as kernels
from lab.hypervisors import _xen_store as store
from lab.hypervisors._xen_config import Kind
from lab.hypervisors._xen_link import Link, said

_PIECE = 16 << 20
_COPY_S = 900.0
_log = log.get(__name__)

_SOME = """# take a piece of a file
set -eu
gzip -dc | dd of="$1" bs=65536 seek="$2" conv=notrunc,sparse iflag=fullblock oflag=seek_bytes status=none
"""
_WHOLE = """# put a copied file in its place
set -eu
[ "$(sha256sum <"$1")" = "$3  -" ] || { rm -f "$1"; echo "the content did not arrive whole" >&2; exit 1; }
mv -f "$1" "$2"
"""
_FROM_DEVICE = """# keep a lent file
set -eu
umask 077
mkdir -p "${2%/*}"
dd if="$1" of="$2.$4" bs=1M iflag=count_bytes count="$3" status=none  # head reads a kilobyte at a time
mv -f "$2.$4" "$2"
"""


@dataclass(frozen=True)
class InDom0:
    """Where the parts of an image are."""

    disk: str  # raw: a file, or a block device of a made host
    kernel: str
    ramdisk: str


def boot_files(root: str, image: Image, kind: Kind) -> tuple[str, str]:
    """Where kernel and RAM disk are in the dom0; empty what the image has not."""
    folder = f"{root}/images/{image.digest.partition(':')[2]}"
    # Xen itself builds a domain from the plain ELF file. A device model loads what a boot loader does, no other:
    # QEMU's machine xenfv has no PVH entry, and says of an ELF file that the kernel is too old.
    kernel = "bzimage" if kind is Kind.HVM else "kernel"
    return f"{folder}/{kernel}" if image.kernel else "", f"{folder}/ramdisk" if image.initrd else ""


def require(image: Image) -> None:
    """Raises `ImageError` when a file of the image is not on this machine."""
    for path in (image.disk, image.kernel, image.initrd):
        if path is not None and not path.is_file():
            raise ImageError(f"image {image.name}: {path} is not there", hint="build or fetch the image again")
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", image.digest):
        raise ImageError(f"image {image.name}: {image.digest!r} is not a digest")


def bring(link: Link, root: str, image: Image, kind: Kind) -> InDom0:
    """Bring what is not there yet. Raises `ImageError`, `HostError`, `HypervisorRefused`."""
    require(image)
    kernel, ramdisk = boot_files(root, image, kind)
    plain = image.kernel is not None and kind is not Kind.HVM
    wanted = {kernel: _kernel_of(image) if plain else image.kernel, ramdisk: image.initrd}
    disk = f"{root}/images/{image.digest.partition(':')[2]}/disk.raw"
    maker = link.dom0.maker
    if maker is not None:
        disk = maker.lend(image.disk, image.disk_format)
    else:
        wanted[disk] = _raw_of(image)
    present = _present(link, [path for path, here in wanted.items() if here is not None])
    for path, here in wanted.items():
        if here is not None and path not in present:
            _lend_copy(link, here, path) if maker is not None else _send(link, here, path)
    return InDom0(disk, kernel, ramdisk)


def _present(link: Link, paths: list[str]) -> set[str]:
    if not link.present.issuperset(paths):
        found = link.sh('# look for files\nfor file; do [ ! -f "$file" ] || echo "$file"; done', *paths)
        link.present |= set(found.out.splitlines()) & set(paths)
    return link.present & set(paths)


def _lend_copy(link: Link, here: Path, path: str) -> None:
    """Faster than SSH by an order of magnitude where the dom0 is emulated."""
    maker = link.dom0.maker
    if maker is None:
        raise HostError(f"{link.host}: nobody made this host")
    device = maker.lend(here, "raw")
    result = link.sh(_FROM_DEVICE, device, path, str(here.stat().st_size), secrets.token_hex(4), timeout_s=_COPY_S)
    try:
        maker.take_back(here)
    except HypervisorRefused as reason:
        # A disk that stays plugged in costs nothing but its place; the copy is what was wanted.
        _log.warning("xen.loan-stays", host=link.host, file=here, why=reason.what)
    if result.status != 0:
        raise store.trouble(link, f"keeping {path}", said(result))


def _send(link: Link, here: Path, path: str) -> None:
    """Copy a file in compressed pieces without its holes; compare digests; put it there whole or not at all."""
    draft = f"{path}.{secrets.token_hex(4)}"
    size = here.stat().st_size
    _log.info("xen.upload", host=link.host, file=here, bytes=size)
    begin = '# begin a file\nset -eu\numask 077\nmkdir -p "${1%/*}"\ntruncate -s "$2" "$1"'
    result = link.sh(begin, draft, str(size))
    digest = hashlib.sha256()
    for offset, piece in _pieces(here):
        if result.status != 0:
            break
        digest.update(piece)
        if piece.count(0) != len(piece):
            packed = gzip.compress(piece, 1)
            result = link.sh(_SOME, draft, str(offset), stdin=packed, timeout_s=_COPY_S)
    if result.status == 0:
        result = link.sh(_WHOLE, draft, path, digest.hexdigest(), timeout_s=_COPY_S)
    if result.status != 0:
        link.run(("rm", "-f", draft))
        raise store.trouble(link, f"copying {here.name} to the dom0", said(result))


def _pieces(here: Path) -> Iterator[tuple[int, bytes]]:
    offset = 0
    with here.open("rb") as file:
        while piece := file.read(_PIECE):
            yield offset, piece
            offset += len(piece)


def _kernel_of(image: Image) -> Path:
    """The image's kernel as plain ELF where that can be had, else as it is."""
    if image.kernel is None:
        raise ImageError(f"image {image.name} has no kernel of its own")
    folder = locations.cache() / "xen"
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / f"{image.digest.partition(':')[2]}.vmlinux"
    with FileLock(f"{kept}.lock"):
        if not kept.exists():
            plain = kernels.plain(image.kernel)
            if plain is None:
                return image.kernel
            draft = kept.with_suffix(".draft")
            draft.write_bytes(plain)
            draft.replace(kept)
    return kept


def _raw_of(image: Image) -> Path:
    """The image's disk as a raw file: itself, or a copy in the cache."""
    if image.disk_format == "raw":
        return image.disk
    folder = locations.cache() / "xen"
    folder.mkdir(parents=True, exist_ok=True)
    raw = folder / f"{image.digest.partition(':')[2]}.raw"
    with FileLock(f"{raw}.lock"):
        if not raw.exists():
            draft = raw.with_suffix(".draft")
            tool = process.find("qemu-img", package="qemu-utils")
            try:
                words = [tool, "convert", "-f", image.disk_format, "-O", "raw", str(image.disk), str(draft)]
                process.check(words, timeout_s=_COPY_S)
                draft.replace(raw)
            finally:
                draft.unlink(missing_ok=True)
    return raw
