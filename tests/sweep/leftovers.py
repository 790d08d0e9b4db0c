"""What a run left behind: processes, files, locks. Ports and network names end with the processes that hold them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from lab import waiting
from lab.errors import WaitedTooLong
from tests.sweep.place import Place

PATIENCE_S = 20.0
"""For what ends by itself: a forked server that notices its parent's death, a keeper that writes its last note."""


def of(place: Place, run: Path | None) -> list[str]:
    """Everything that is there and should not be, each as one line; empty when all is well."""
    with suppress(WaitedTooLong):  # they are named below
        waiting.until(lambda: not processes(place), what="no process to be left", timeout_s=PATIENCE_S)
    found = [f"process {line}" for line in processes(place)]
    found += [f"file {path.relative_to(place.root)}" for path in _files(place, run)]
    found += [f"lock {path.relative_to(place.root)}" for path in _locks(place, run)]
    return found


def processes(place: Place) -> Sequence[str]:
    """Every process that has to do with a place, but this one and those that started it."""
    mark = str(place.root).encode()
    own = _ancestors()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in own:
            continue
        seen = _about(entry)
        if mark in seen:
            found.append(f"{entry.name}: {seen.split(mark)[0][-60:].decode(errors='replace')!r}...")
    return found


def _about(process: Path) -> bytes:
    """Command line, environment, folder and open files of a process, as far as they can be read."""
    parts = []
    for name in ("cmdline", "environ"):
        try:
            parts.append((process / name).read_bytes())
        except OSError:
            continue
    try:
        links = [process / "cwd", *(process / "fd").iterdir()]
    except OSError:
        links = []
    for link in links:
        try:
            parts.append(os.fsencode(link.readlink()))
        except OSError:
            continue
    return b"\0".join(parts)


def _ancestors() -> set[int]:
    found, pid = set(), os.getpid()
    while pid > 1:
        found.add(pid)
        pid = int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
    return found


def _files(place: Place, run: Path | None) -> Iterator[Path]:
    """Machines, drafts, half-made images and copies, seeds with their private keys, temporary files."""
    yield from place.machines.glob("*/*/*")
    yield from place.cache.glob("images/.making/*")
    yield from place.cache.glob("warm/*/.*")
    yield from place.cache.rglob("*.part")
    yield from place.temporary.glob("*")
    yield from (path for path in place.reports.glob("**/.*") if path.name != ".interop-lab-site")
    if run is not None:
        yield from run.rglob("seed-*")


def _locks(place: Place, run: Path | None) -> Iterator[Path]:
    folders = [run, run / "cells"] if run is not None else []
    for path in (*folders, *place.cache.rglob("*.lock")):
        held = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield path
        finally:
            os.close(held)
