"""Snapshots of a User-Mode Linux machine's disks; its memory cannot be saved."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from urllib.parse import quote, unquote

from lab import log, process, waiting
from lab.contracts import MachineState
from lab.errors import HypervisorRefused, WaitedTooLong
from lab.hypervisors import _uml_control as control
from lab.hypervisors import _uml_plugs as plugs
from lab.hypervisors import _uml_power as power
from lab.hypervisors._uml_store import Directory

_PREFIX = "of-"  # keeps "." and ".." from being folders
_LONGEST_NAME = 100
_UNWRITTEN = re.compile(r"^(?:Dirty|Writeback):\s+(\d+) kB$", re.MULTILINE)
_SYNC_LIMIT_S = 10.0
_log = log.get(__name__)


def take(directory: Directory, name: str) -> None:
    """Keep the disks as they are, after the guest wrote what it held back; it goes on as it was."""
    target = _folder(directory, name)
    if target.exists():
        raise HypervisorRefused(f"a snapshot {name!r} of {directory.path.name} exists already")
    _refuse_plugged(directory, "taken")
    running = power.state(directory) is MachineState.RUNNING
    if running:
        _sync(directory)
        power.pause(directory)
    draft = target.with_name(f".draft-{target.name}")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        _copy(directory.path, draft)
        draft.replace(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        if running:
            power.resume(directory)


def restore(directory: Directory, name: str) -> None:
    """Cut the power, put the disks back, and boot from them."""
    source = _folder(directory, name)
    if not source.is_dir():
        raise HypervisorRefused(
            f"there is no snapshot {name!r} of {directory.path.name}; there are: {names(directory)}"
        )
    _refuse_plugged(directory, "restored")
    power.end(directory)
    # Whole copies first, so that a full disk leaves the machine as it was.
    draft = directory.path / ".restored"
    try:
        shutil.rmtree(draft, ignore_errors=True)
        _copy(source, draft)
        for disk in (directory.root, directory.data):
            kept = draft / disk.name
            if kept.exists():
                kept.replace(disk)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    if power.start(directory):
        plugs.share_again(directory)


def forget(directory: Directory, name: str) -> None:
    """Raises `HypervisorRefused` when there is none of that name."""
    target = _folder(directory, name)
    if not target.is_dir():
        raise HypervisorRefused(f"{directory.path.name} has no snapshot {name!r}")
    shutil.rmtree(target)


def names(directory: Directory) -> tuple[str, ...]:
    if not directory.snapshots.is_dir():
        return ()
    kept = (path.name for path in directory.snapshots.iterdir() if path.name.startswith(_PREFIX))
    return tuple(sorted(unquote(name.removeprefix(_PREFIX)) for name in kept))


def _folder(directory: Directory, name: str) -> Path:
    if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable() or len(quote(name, safe="")) > 2 * _LONGEST_NAME:
        raise HypervisorRefused(f"{name!r} cannot be the name of a snapshot: 1 to {_LONGEST_NAME} printable characters")
    if not directory.exists():
        raise power.vanished(directory)
    return directory.snapshots / (_PREFIX + quote(name, safe=""))


def _refuse_plugged(directory: Directory, doing: str) -> None:
    """A disk that came later is not in a snapshot, and would be torn from the others."""
    disks = [one.name for one in directory.plugged() if one.kind == "disk"]
    if disks:
        raise HypervisorRefused(f"a snapshot cannot be {doing} while disks are plugged: {', '.join(disks)}")


def _sync(directory: Directory) -> None:
    """Ask the kernel to write everything and wait until its own numbers say that it did."""
    control.mconsole(directory.path, "sysrq s")

    def written() -> bool:
        return sum(map(int, _UNWRITTEN.findall(control.mconsole(directory.path, "proc meminfo")))) == 0

    try:
        waiting.until(written, what="the guest to write its dirty pages", timeout_s=_SYNC_LIMIT_S)
    except WaitedTooLong as reason:
        # A guest that writes all the time is never clean; what is kept is then what a power cut would leave.
        _log.info("snapshot.unclean", machine=directory.path.name, reason=reason)


def _copy(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    disks = [path for path in (source / "root.cow", source / "data.raw") if path.exists()]
    if disks:
        # Sparse: the copy-on-write file is as long as its base and mostly holes.
        process.check(["cp", "--sparse=always", "--reflink=auto", "--", *disks, target], timeout_s=300)
