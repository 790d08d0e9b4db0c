"""Images: from what an inventory names to files on this machine that a machine can start from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab import log
from lab.contracts import Image
from lab.errors import ImageCorrupt, ImageError
from lab.inventory.models import BuildSource, FileSource, ImageSource, PackageSource, UrlSource
from lab.provisioning import cache, recipes
from lab.provisioning.cache import Manifest, Progress

logger = log.get(__name__)


@dataclass(frozen=True)
class Listed:
    """One image of the cache, for `lab images list`."""

    name: str
    digest: str
    origin: str
    made: str
    folder: Path
    disk_bytes: int  # what it occupies
    current: bool  # false: made from a recipe that has changed since, nothing uses it
    packages: dict[str, str]


def resolve(source: ImageSource, *, progress: Callable[[str], None]) -> Image:
    """The image that `source` names: from the cache, else built or fetched.

    Raises `ImageError`, `ImageCorrupt`, `LabDiskFull`, `LabBusy`, `MissingTool`, `MissingExtra`.
    """
    ready = _ready(source)
    if ready is not None:
        return ready
    name = entry_name(source)
    with cache.held(name, progress):
        ready = _ready(source, progress=progress)  # somebody else may have made it while we waited
        return ready if ready is not None else _make(source, name, progress)


def cached(source: ImageSource) -> Image | None:
    """The image if it is there and whole by size and time, without making anything."""
    try:
        return _ready(source)
    except ImageCorrupt as reason:
        logger.warning("image.damaged", why=str(reason))
        return None


def verify(source: ImageSource) -> Image | None:
    """The image with every byte held against its sum; `None` when it is not in the cache. Raises `ImageCorrupt`."""
    folder = cache.root() / entry_name(source)
    manifest = cache.read_manifest(folder)
    return None if manifest is None else cache.check(folder, manifest, fully=True).image(folder)


def verify_all() -> tuple[dict[str, str], ...]:
    """Every byte of every image of the cache held against its sum: one row each, with `problem` empty or a sentence."""
    rows = []
    for folder, manifest in cache.entries():
        try:
            cache.check(folder, manifest, fully=True)
            problem = ""
        except ImageError as reason:
            problem = str(reason)
        rows.append({"name": manifest.name, "digest": manifest.digest, "folder": str(folder), "problem": problem})
    return tuple(rows)


def listing() -> tuple[Listed, ...]:
    """What the cache holds."""
    current = {entry_name(BuildSource(build=name)) for name in recipes.names()}
    return tuple(
        Listed(
            name=manifest.name,
            digest=manifest.digest,
            origin=manifest.origin,
            made=manifest.made,
            folder=folder,
            disk_bytes=cache.used_bytes(folder),
            current=folder.name in current or not manifest.origin.startswith("built"),
            packages=manifest.packages,
        )
        for folder, manifest in cache.entries()
    )


def entry_name(source: ImageSource) -> str:
    """The name of an image's folder in the cache: it says all that the image depends on, as a digest."""
    match source:
        case BuildSource(build=name):
            return f"{name}-{recipes.load(name).key()}"
        case FileSource() | UrlSource():
            from lab.provisioning import fetch

            return fetch.entry_name(source)
        case PackageSource():
            from lab.provisioning import convert

            return convert.entry_name(source)


def _ready(source: ImageSource, *, progress: Progress | None = None) -> Image | None:
    """The image as the cache has it; with `progress`, what the lab built and is damaged is put away."""
    folder = cache.root() / entry_name(source)
    try:
        manifest = cache.read_manifest(folder)
        return None if manifest is None else cache.check(folder, manifest).image(folder)
    except ImageCorrupt as reason:
        if isinstance(source, UrlSource):
            raise
        # A file that changed is verified again, against the sum in the inventory.
        if progress is None or isinstance(source, FileSource):
            return None
        # It can be made again, so a damaged copy is no reason to stop; the damage is kept for a person to see.
        logger.warning("image.damaged", why=reason.what)
        progress(f"damaged, will be made again: {reason.what}; the damaged one is in {cache.set_aside(folder)}")
        return None


def _make(source: ImageSource, name: str, progress: Progress) -> Image:
    with cache.making(name) as work:
        manifest = _made(source, work, progress)
        folder = work / "image"
        cache.write_manifest(manifest, folder)
        final = cache.publish(folder, name)
    image = cache.check(final, manifest).image(final)
    logger.info("image.made", name=name, digest=image.digest)
    return image


def _made(source: ImageSource, work: Path, progress: Progress) -> Manifest:
    match source:
        case BuildSource(build=recipe):
            return _build(recipes.load(recipe), work, progress)
        case FileSource():
            from lab.provisioning import fetch

            return fetch.from_file(source, work, progress)
        case UrlSource():
            from lab.provisioning import fetch

            return fetch.from_url(source, work, progress)
        case PackageSource():
            from lab.provisioning import convert

            return convert.from_package(source, work, progress)


def _build(recipe: recipes.Recipe, work: Path, progress: Progress) -> Manifest:
    from lab.provisioning import build

    progress(f"building {recipe.name}: {recipe.title}")
    built = build.build(recipe, work, progress)
    folder = work / "image"
    folder.mkdir()
    files: list[cache.CachedFile] = []
    parts = [(built.disk, "disk.raw"), (built.kernel, "vmlinuz"), (built.initrd, "initrd")]
    if built.hypervisor is not None:
        parts.append((built.hypervisor, "hypervisor"))
    for path, name in parts:
        if not path.is_file():
            raise ImageError(f"the recipe {recipe.name} made no {name}")
        path.chmod(0o444)
        files.append(cache.describe(path.rename(folder / name), folder=folder))
    kernel = next((f"{name} {version}" for name, version in built.packages.items() if name.startswith("linux-")), "")
    made = cache.now()
    return Manifest(
        name=recipe.name,
        arch=recipe.arch,
        disk_format="raw",
        kernel_arguments=recipe.kernel_arguments,
        origin=f"built on {made} from the recipe {recipe.name} (Debian {recipe.suite}; {kernel})",
        made=made,
        packages=built.packages,
        disk=files[0],
        kernel=files[1],
        initrd=files[2],
        hypervisor=files[3] if built.hypervisor is not None else None,
    )
