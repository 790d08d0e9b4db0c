"""Machines that are directories of this machine: their owner marks, how they are claimed, found and removed.

A directory is a machine from the moment `machine.json` is whole in it; everything else may be missing.
Below every driver that keeps its machines so, because no driver imports another.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from lab import locations, log, process
from lab.contracts import Firmware, Image, MachineSpec, Owner, Profile
from lab.errors import HypervisorRefused

T = TypeVar("T")
MARK = "machine.json"
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_log = log.get(__name__)


def of_host(driver: str, host: str) -> Path:
    """Where the machines of a host are. Raises `HypervisorRefused` for a name that cannot be a directory's."""
    return locations.state() / "machines" / driver / _checked(host)


def of_machine(driver: str, host: str, machine: str) -> Path:
    """Raises `HypervisorRefused` for a name that cannot be a directory's."""
    return of_host(driver, host) / _checked(machine)


def marked(driver: str, host: str) -> Iterator[Path]:
    """Every directory of a host that bears a mark, those of dead controllers too, by name."""
    folder = of_host(driver, host)
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if is_marked(path):
            yield path


def every(driver: str, host: str, read: Callable[[Path], T]) -> Iterator[tuple[Path, T]]:
    """What `read` makes of every marked directory of a host; a mark that cannot be read is told in the log."""
    for path in marked(driver, host):
        try:
            found = read(path)
        except HypervisorRefused as reason:
            _log.debug("machine.destroyed-meanwhile", path=path, reason=reason)
        except (ValueError, KeyError, TypeError) as reason:
            _log.warning("machine.unreadable", path=path, reason=reason)
        else:
            yield path, found


def connect(directory: Path, name: str) -> socket.socket:
    """A connection to the UNIX socket `name` of that directory. Raises `OSError`."""
    # An address of a UNIX socket has 107 bytes (unix(7)) and a machine's path may have more.
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(f"/proc/self/fd/{opened}/{name}")
    except OSError:
        connection.close()
        raise
    finally:
        os.close(opened)
    return connection


def is_marked(path: Path) -> bool:
    return (path / MARK).is_file()


def claim(path: Path, name: str, mark: Mapping[str, Any]) -> None:
    """Make the directory of a new machine. Raises `HypervisorRefused` when one is in it, `LabDiskFull`."""
    if is_marked(path):
        raise HypervisorRefused(f"a machine {name!r} exists already", hint="destroy it, or run lab reap")
    # What is there without a mark is left from a creation that was killed at once.
    shutil.rmtree(path, ignore_errors=True)
    try:
        path.mkdir(parents=True, mode=0o700)
    except OSError as reason:
        raise process.disk_full_or(reason, f"making {path}") from reason
    write_mark(path, mark)


def write_mark(path: Path, mark: Mapping[str, Any]) -> None:
    """Raises `LabDiskFull`."""
    write(path / MARK, {**mark, "schema": 1})


def read_mark(path: Path) -> Any:
    """What `write_mark` was given. Raises `HypervisorRefused` when the machine was destroyed, `ValueError`."""
    content = read(path / MARK)
    if content is None:
        raise HypervisorRefused(f"machine {path.name!r} is gone: it was destroyed")
    return content


def remove(path: Path) -> None:
    """Take the mark away last, so that a removal that is interrupted can be found and finished."""
    if not path.exists():
        return
    with suppress(FileNotFoundError):  # another process removes it as well
        for inside in path.iterdir():
            if inside.name != MARK:
                is_folder = inside.is_dir() and not inside.is_symlink()
                shutil.rmtree(inside) if is_folder else inside.unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def write(path: Path, content: Any) -> None:
    """A JSON file, whole or not at all. Raises `LabDiskFull`."""
    draft = path.with_name(f".{path.name}.draft")
    try:
        draft.write_text(json.dumps(content, indent=1, default=str))
        draft.replace(path)
    except OSError as reason:
        raise process.disk_full_or(reason, f"writing {path}") from reason


def read(path: Path) -> Any:
    """The content of a JSON file, `None` when it is not there."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None


def spec_of(content: Mapping[str, Any]) -> MachineSpec:
    """The specification that was written as `dataclasses.asdict`. Raises `KeyError`, `TypeError`, `ValueError`."""
    image = content["image"]
    # A mark of an older lab knows no hypervisor.
    parts = {name: path_of(image.get(name)) for name in ("kernel", "initrd", "hypervisor")}
    paths = {"disk": Path(image["disk"]), **parts}
    return MachineSpec(
        name=content["name"],
        owner=Owner(**content["owner"]),
        image=Image(**{**image, **paths}),
        profile=Profile(**{**content["profile"], "firmware": Firmware(content["profile"]["firmware"])}),
        seed=path_of(content["seed"]),
        data_disk_mib=content["data_disk_mib"],
    )


def path_of(value: str | None) -> Path | None:
    return None if value is None else Path(value)


def _checked(name: str) -> str:
    # A name becomes a directory: nothing of it may climb out.
    if not _SAFE_NAME.fullmatch(name):
        raise HypervisorRefused(f"{name!r} cannot be the name of a machine")
    return name
