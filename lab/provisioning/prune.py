"""Prune: remove from this machine's cache what no cell of the named inventories can start from any more.

What a machine that exists needs stays, whatever run or person it belongs to: its mark names the files.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Protocol, runtime_checkable

from lab import hypervisors, locations, log
from lab.contracts import Cell, Image, MachineSpec, Owner
from lab.errors import CommandFailed
from lab.inventory.models import BuildSource, Host, Inventory
from lab.provisioning import cache, hosts, images, made_frozen, recipes
from lab.provisioning.bring_up import DATA_DISK_MIB

_log = log.get(__name__)
SCHEMA = 1
_NOBODY = Owner("prune", "", 0, 0)


@dataclass(frozen=True)
class Leftover:
    """Something of the cache that nothing uses."""

    path: Path
    what: str
    why: str
    bytes_freed: int  # of the disk


@runtime_checkable
class KeepsCache(Protocol):
    """Of a hypervisor: it keeps things in this machine's cache that it can make again."""

    def cached(self) -> Mapping[str, Path]:
        """Everything that is there, by key."""

    def cache_keys(self, spec: MachineSpec) -> Sequence[str]:
        """The keys of what a machine of that specification starts from, there or not."""


def find(inventories: Iterable[Inventory]) -> list[Leftover]:
    """What can go. Raises `LabError` when a host that keeps a cache cannot be asked what it still uses."""
    known = list(inventories)
    marks = _marks()
    found = [*_images(known), *_damaged(), *_of_hosts(known), *_frozen(known)]
    return [leftover for leftover in found if not any(_is_named(leftover.path, mark) for mark in marks)]


def remove(leftovers: Iterable[Leftover]) -> None:
    """Delete what `find` found. Raises `CommandFailed` where that is not possible."""
    for leftover in leftovers:
        _log.info("cache.pruned", path=leftover.path, why=leftover.why)
        # By one rename out of sight first: half of an image must not be believed.
        grave = leftover.path.with_name(f".pruned-{leftover.path.name}")
        try:
            leftover.path.rename(grave)
            shutil.rmtree(grave) if grave.is_dir() else grave.unlink()
        except FileNotFoundError:
            continue  # another process was faster
        except OSError as reason:
            raise CommandFailed(f"{leftover.path} cannot be removed: {reason.strerror}") from reason


def as_json(leftovers: Sequence[Leftover], *, dry_run: bool) -> dict[str, object]:
    """What `lab images prune --json` prints."""
    return {
        "schema": SCHEMA,
        "dry_run": dry_run,
        "removed": [
            {"path": str(it.path), "what": it.what, "why": it.why, "bytes": it.bytes_freed} for it in leftovers
        ],
        "bytes": sum(it.bytes_freed for it in leftovers),
    }


def _images(inventories: Sequence[Inventory]) -> Iterator[Leftover]:
    current = {images.entry_name(BuildSource(build=name)) for name in recipes.names()}
    named = current | {
        images.entry_name(entry.image)
        for inventory in inventories
        for entry in inventory.guests.values()
        if entry.missing() is None
    }
    for folder, manifest in cache.entries():
        if folder.name not in named:
            built = manifest.origin.startswith("built")
            why = "its recipe has changed" if built else "no guest of these inventories is made from it"
            yield Leftover(folder, f"image {manifest.name} of {manifest.made[:16]}", why, cache.used_bytes(folder))


def _damaged() -> Iterator[Leftover]:
    folder = cache.root() / ".damaged"
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        yield Leftover(path, f"image {path.name}", "it is damaged and was put aside", cache.used_bytes(path))


def _of_hosts(inventories: Sequence[Inventory]) -> Iterator[Leftover]:
    """What drivers keep. The hosts of a driver share its cache, so all of them are asked before anything goes."""
    there: dict[Path, str] = {}
    used: set[Path] = set()
    for inventory in inventories:
        for host in inventory.hosts.values():
            if hosts.made_from(host) or not hypervisors.load(host.driver).RUNS_HERE:
                continue  # what it keeps is not on this machine, or goes with the host
            with hypervisors.load(host.driver).connect(host.name, host.settings) as hypervisor:
                if isinstance(hypervisor, KeepsCache):
                    cached = hypervisor.cached()
                    there |= dict.fromkeys(cached.values(), host.driver)
                    used |= {cached[key] for key in _keys(inventory, host, hypervisor) if key in cached}
    for path in sorted(set(there) - used):
        what = f"kept by the driver {there[path]}: {path.name[:20]}"
        yield Leftover(path, what, "no machine of these inventories starts from it", _size(path))


def _frozen(inventories: Sequence[Inventory]) -> Iterator[Leftover]:
    """Frozen hosts that no made host of these inventories is restored from."""
    there = made_frozen.every()
    recipes_used = {hosts.made_from(host) for inventory in inventories for host in inventory.hosts.values()} - {""}
    found = [images.cached(BuildSource(build=recipe)) for recipe in recipes_used if there]
    used = {made_frozen.key(image) for image in found if image is not None}
    for name, path in there.items():
        if name not in used:
            why = "no host of these inventories is restored from it"
            yield Leftover(path, f"frozen host {name[:12]}", why, _size(path))


def _keys(inventory: Inventory, host: Host, hypervisor: KeepsCache) -> Iterator[str]:
    driver = hypervisors.load(host.driver)
    for entry, profile in product(inventory.guests.values(), inventory.profiles):
        cell = Cell(host.name, entry.name, profile)
        hardware = inventory.profile_of(cell)
        image: Image | None = None
        if not (driver.refuses(hardware) or entry.missing()):
            image = images.cached(entry.image)
        if image is not None:
            seed = Path("seed") if entry.seed == "lab" else None
            yield from hypervisor.cache_keys(MachineSpec("prune", _NOBODY, image, hardware, seed, DATA_DISK_MIB))


def _marks() -> list[str]:
    """The text of every machine's mark on this machine, those of other inventories too."""
    texts = []
    # A walk goes on when a folder is removed under it, and a glob does not.
    for folder, _, files in os.walk(locations.state() / "machines"):
        if "machine.json" not in files:
            continue
        path = Path(folder) / "machine.json"
        try:
            texts.append(path.read_text(errors="replace"))
        except OSError as reason:
            _log.debug("mark.gone", path=path, reason=reason)  # the machine was destroyed meanwhile
    return texts


def _is_named(path: Path, mark: str) -> bool:
    # A warm copy is named by its key, an image by the paths of its files.
    return str(path) in mark or path.name in mark


def _size(path: Path) -> int:
    return cache.used_bytes(path) if path.is_dir() else path.stat().st_blocks * 512
