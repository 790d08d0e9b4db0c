"""Warm copies: the memory, the devices and the disks of a machine that booted once, to start others from.

A copy is a directory below the cache that appears by one rename, so a save that was killed left nothing but a
draft. It is tied to all that QEMU's state file is tied to (its version, the devices, the processor model, the
memory) and to our own files, whose change may change the command line; the key is the digest of these.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lab import locations, log, process
from lab.contracts import MachineSpec, MachineState
from lab.errors import HypervisorRefused, NotSupported
from lab.hypervisors import _qemu_line as line
from lab.hypervisors import _qemu_memory as memory
from lab.hypervisors import _qemu_power as power
from lab.hypervisors import _qemu_snapshots as snapshots
from lab.hypervisors._qemu_monitor import Monitor
from lab.hypervisors._qemu_store import Directory, Mark, require_space

_STATE, _MANIFEST, _IDENTITY = "state", "manifest.json", "identity"
_log = log.get(__name__)


def key(spec: MachineSpec, parts: Mapping[str, str]) -> str:
    """64 hexadecimal digits; `parts` names what the host adds: version, accelerator, processor model."""
    profile = {**asdict(spec.profile), "name": ""}  # two names for the same hardware share a copy
    whole = {
        "image": spec.image.digest,
        "profile": profile,
        "data_disk_mib": spec.data_disk_mib,
        "seed": spec.seed is not None,
        "driver": _driver_digest(),
        **parts,
    }
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def exists(warm_key: str) -> bool:
    """Whether a whole copy is there: every file of the size that was written."""
    try:
        manifest = _manifest(warm_key)
        return all((_home(warm_key) / name).stat().st_size == size for name, size in manifest["sizes"].items())
    except (HypervisorRefused, FileNotFoundError):
        return False


def identity(warm_key: str) -> bytes:
    """What was given to `save`. Raises `HypervisorRefused` when there is no such copy."""
    _manifest(warm_key)
    return (_home(warm_key) / _IDENTITY).read_bytes()


def forget(warm_key: str) -> None:
    """Delete a copy; machines made from it have their own and go on. Safe to call twice."""
    home = _home(warm_key)
    if not home.exists():
        return
    grave = _draft(warm_key)
    try:
        # By one rename as well: a half-deleted copy must not be believed.
        home.replace(grave)
    except FileNotFoundError:  # another process was faster
        return
    shutil.rmtree(grave, ignore_errors=True)


def every() -> Mapping[str, Path]:
    """Everything that lies where copies are, by key; what a save that was killed left has a key that nobody wants."""
    folder = _home("0" * 64).parent
    found = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        draft = re.fullmatch(r"\.draft-[0-9a-f]{12}-(\d+)-[0-9a-f]{8}", path.name)
        # The id alone does not prove who saves there: a draft of anybody who lives stays.
        if draft is None or process.start_time(int(draft[1])) is None:
            found[path.name] = path
    return found


def save(warm_key: str, directory: Directory, kept_identity: bytes) -> None:
    """Save a running machine; it stands still for that time and goes on.

    Raises `HypervisorRefused`, also for hardware that QEMU cannot save, `LabDiskFull`.
    """
    mark = directory.read()
    _refuse_unsaved(directory)
    if power.state(directory) is not MachineState.RUNNING:
        raise HypervisorRefused(f"{mark.spec.name} does not run, so there is no memory to save")
    if mark.disks or mark.nics or mark.processors or mark.modules or mark.resized:
        raise HypervisorRefused(f"{mark.spec.name} is not what it was made as: a device was plugged in, or a disk grew")
    if snapshots.names(directory):
        raise HypervisorRefused(f"{mark.spec.name} has snapshots, which every copy would carry")
    draft = _draft(warm_key)
    draft.mkdir(parents=True, mode=0o700)
    try:
        disks = _disks(mark, directory)
        needed = (mark.spec.profile.memory_mib << 20) + sum(path.stat().st_size for path in disks.values())
        require_space(draft, needed, f"a warm copy of {mark.spec.name}")
        with power.monitor_of(directory) as monitor:
            _write(monitor, draft, disks)
        (draft / _IDENTITY).write_bytes(kept_identity)
        _seal(draft)
        _publish(draft, _home(warm_key))
    except OSError as reason:
        raise process.disk_full_or(reason, f"saving a warm copy of {mark.spec.name}") from reason
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    _log.info("warm.saved", machine=mark.spec.name, key=warm_key)


def _refuse_unsaved(directory: Directory) -> None:
    try:
        snapshots.refuse_unsaved(directory)
    except NotSupported as reason:
        # A check that needs snapshots is answered with "unsupported"; a copy is only for speed.
        raise HypervisorRefused(reason.what) from reason


def _write(monitor: Monitor, draft: Path, disks: Mapping[str, Path]) -> None:
    monitor.command("stop")
    try:
        memory.write(monitor, draft / _STATE)
        # Migrated away, QEMU has written everything back and lets go of the disks: now they are of one moment.
        for name, path in disks.items():
            process.check(["cp", "--reflink=auto", "--sparse=auto", path, draft / name], timeout_s=memory.LIMIT_S)
    finally:
        monitor.command("cont")


def _seal(draft: Path) -> None:
    sizes = {path.name: path.stat().st_size for path in draft.iterdir()}
    manifest = {"schema": 1, "sizes": sizes, "state_crc32": _checksum(draft / _STATE)}
    (draft / _MANIFEST).write_text(json.dumps(manifest))
    for path in draft.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _publish(draft: Path, home: Path) -> None:
    try:
        draft.rename(home)
    except OSError:
        # Somebody else saved the same key meanwhile; both are good and theirs stays.
        if not home.is_dir():
            raise


def clone(warm_key: str, directory: Directory) -> socket.socket:
    """Start a machine, whose directory is made, from the copy; the line to what waits in its guest.

    Raises `HypervisorRefused` when the copy is unusable.
    """
    home = _home(warm_key)
    manifest = _manifest(warm_key)
    with ThreadPoolExecutor(1) as beside:
        # Reading the state to check it takes as long as QEMU takes to load it.
        checksum = beside.submit(_checksum, home / _STATE)
        directory.change(warm_key=warm_key)
        lines: list[socket.socket] = []

        def before_it_runs(monitor: Monitor) -> None:
            lines.append(line.opened_while(monitor, directory))
            _verify(checksum.result(), manifest)

        try:
            memory.load(directory, home / _STATE, before_it_runs)
        except BaseException as reason:
            for opened in lines:
                opened.close()
            if isinstance(reason, HypervisorRefused):
                raise HypervisorRefused(f"the warm copy {warm_key[:12]} is unusable: {reason.what}") from reason
            raise
        return lines[0]


def _verify(checksum: int, manifest: Mapping[str, Any]) -> None:
    if checksum != manifest["state_crc32"]:
        raise HypervisorRefused("the saved memory is not what was written")


def disk_commands(warm_key: str) -> Callable[[Mark, Directory], list[list[str]]]:
    """What makes a clone's disks: a hard link to each saved one, and a layer on it.

    The link keeps the saved disk for this machine when the copy is forgotten; where the cache is on another file
    system, it is copied.
    """
    home = _home(warm_key)

    def commands(mark: Mark, directory: Directory) -> list[list[str]]:
        made = [*power.seed_commands(mark, directory), *power.own_boot_disk(mark, directory)]
        for name, path in _disks(mark, directory).items():
            frozen = path.with_name(f"frozen-{name}")
            link = "--link" if home.stat().st_dev == directory.path.stat().st_dev else "--reflink=auto"
            made.append(["cp", link, str(home / name), str(frozen)])
            made.append(power.overlay_command(frozen, "qcow2", path))
        return made

    return commands


def _disks(mark: Mark, directory: Directory) -> Mapping[str, Path]:
    """The writable disks by the names that they have in a copy.

    Not the layer on a seed: it ends with its machine, and every clone has a seed of its own.
    """
    hardware = power.hardware(mark, directory)
    disks = snapshots.writable_disks(directory, hardware)
    return {path.name: path for path in disks if path != directory.seed_overlay}


def _home(warm_key: str) -> Path:
    if len(warm_key) != 64 or not set(warm_key) <= set("0123456789abcdef"):
        raise HypervisorRefused(f"{warm_key!r} is not a key of a warm copy")
    return locations.cache() / "warm" / "qemu" / warm_key


def _draft(warm_key: str) -> Path:
    return _home(warm_key).with_name(f".draft-{warm_key[:12]}-{os.getpid()}-{os.urandom(4).hex()}")


def _manifest(warm_key: str) -> Any:
    try:
        return json.loads((_home(warm_key) / _MANIFEST).read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise HypervisorRefused(f"there is no warm copy {warm_key[:12]}") from None


def _checksum(path: Path) -> int:
    total = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            total = zlib.crc32(block, total)
    return total


def _driver_digest() -> str:
    here = Path(__file__).parent
    whole = hashlib.sha256()
    for path in sorted((here / "qemu.py", *here.glob("_qemu_*.py"))):
        whole.update(path.read_bytes())
    return whole.hexdigest()
