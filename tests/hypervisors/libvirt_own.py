"""A libvirtd of the lab's own for the driver's tests, and guests of one sector, which QEMU starts in no time."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab import process, waiting
from lab.contracts import Firmware, Image, MachineSpec, Owner, Profile
from lab.hypervisors import _libvirt_daemon as daemons
from lab.hypervisors import libvirt
from lab.hypervisors._libvirt_daemon import OwnDaemon
from lab.hypervisors._libvirt_host import LibvirtHost
from lab.hypervisors._libvirt_machine import LibvirtMachine
from tests.hypervisors.conftest import SECTORS

HOST = "own"
PROFILE = Profile("plain", Firmware.BIOS, "pc", "virtio", "virtio", 1, 32)
SETTINGS = libvirt.Settings(accelerator="tcg")
Make = Callable[..., LibvirtMachine]


@contextmanager
def connected(folders: pytest.TempPathFactory, settings: libvirt.Settings = SETTINGS) -> Iterator[LibvirtHost]:
    """A host in folders of its own; at the end its daemons are ended, and nothing runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folders.mktemp("state")))
        patch.setenv("XDG_CACHE_HOME", str(folders.mktemp("cache")))
        try:
            with libvirt.connect(HOST, settings) as host:
                yield host
                for _, machine in host.machines():
                    machine.destroy()
        finally:
            end_daemons(HOST)


def end_daemons(host: str) -> None:
    """End those of a host and what writes their logs, by the ids that they wrote down."""
    for daemon in daemons.daemons_of(host):
        end(daemon)
        _end_by_file(daemon.home / "r/libvirt/virtlogd.pid")


def _end_by_file(path: Path) -> None:
    try:
        pid = int(path.read_text())
    except (FileNotFoundError, ValueError):
        return
    started = process.start_time(pid)
    if started is not None:
        process.end_by_id(pid, started, patience_s=20.0)


def end(daemon: OwnDaemon, *, kill: bool = False) -> None:
    """Returns when it is gone."""
    pid = daemon.pid()
    started = None if pid is None else process.start_time(pid)
    if pid is None or started is None:
        return
    if kill:
        os.kill(pid, signal.SIGKILL)
        waiting.until(lambda: not process.is_alive(pid, started), what="libvirtd to end", timeout_s=60)
    else:
        process.end_by_id(pid, started, patience_s=20.0)


def spec_of(folder: Path, guest: str, name: str = "one", profile: Profile = PROFILE) -> MachineSpec:
    """A machine whose disk holds one of `SECTORS`."""
    disk = folder / f"{guest}.raw"
    content = bytes.fromhex(SECTORS[guest]).ljust(510, b"\0") + b"\x55\xaa" + bytes(1 << 20)
    if not disk.exists():
        disk.write_bytes(content)
    owner = Owner("run", "host/guest/profile", os.getpid(), process.start_time(os.getpid()) or 0)
    digest = "sha256:" + guest.encode().hex().ljust(64, "0")[:64]
    return MachineSpec(name, owner, Image(guest, digest, disk, "raw"), profile)
