"""The file system that a User-Mode Linux process sees: itself, its machine's disks, programs, nothing else.

User-Mode Linux has hostfs built in: root in the guest can mount any folder that the linux.uml process can see.
Therefore it gets a root of its own, made of bind mounts in its mount namespace. Only the standard library, because
the warden imports it. Specifications: mount(2), pivot_root(2), mount_namespaces(7).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MACHINE = Path("/machine")
"""Where linux.uml runs: an empty folder in memory but for the machine's disks, one by one.

The machine's real folder is not there, because a guest could put a link into it that the driver then follows.
"""

_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT, _NOATIME = 1, 2, 4, 8, 32, 1024
_NODIRATIME, _BIND, _REC, _PRIVATE, _RELATIME = 2048, 4096, 16384, 1 << 18, 1 << 21
_DETACH = 2
_PR_SET_DUMPABLE, _PR_CAPBSET_DROP = 4, 24
_SYS_PIVOT_ROOT = 155  # x86-64; the C library has no wrapper
_DEVICES = ("null", "zero", "full", "random", "urandom", "net/tun")
_PROGRAM_FOLDERS = ("/usr", "/lib", "/lib64", "/bin", "/sbin")

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class View:
    """What is visible below the new root, by its path there."""

    read_only: Mapping[str, Path]
    writable: Mapping[str, Path]
    memory_mib: int


def confine(root: Path, view: View) -> None:
    """Make a root on the empty folder `root` and move this process into it. Raises `OSError`."""
    _mount("none", "/", "", _REC | _PRIVATE)
    _mount("tmpfs", root, "tmpfs", _NOSUID, "mode=0755,size=1m,nr_inodes=1k")
    for folder in _PROGRAM_FOLDERS:
        _show_folder(Path(folder), root)
    for folder in ("proc", "tmp", "machine", "old", "dev"):
        (root / folder).mkdir()
    for name, source in view.read_only.items():
        _show_file(source, root / name, read_only=True)
    for name, source in view.writable.items():
        _show_file(source, root / name, read_only=False)
    for device in _DEVICES:
        _show_file(Path("/dev") / device, root / "dev" / device, read_only=False)
    # The guest's memory is a file here. Docker gives 64 MiB of /dev/shm, which would kill the guest with SIGBUS.
    # The kernel adds some for itself.
    memory = root / "dev/shm"
    memory.mkdir()
    _mount("tmpfs", memory, "tmpfs", _NOSUID | _NODEV, f"mode=0700,size={view.memory_mib + 256}m")
    _mount("proc", root / "proc", "proc", _NOSUID | _NODEV | _NOEXEC)
    _pivot(root)
    os.chdir(MACHINE)


def drop_privileges() -> None:
    """What this process executes has no capability in its namespaces, and nobody there can look into this process.

    linux.uml opens its tap device, its disks and its children without any. Raises `OSError`.
    """
    for capability in range(int(Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1):
        if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            raise _error("prctl PR_CAPBSET_DROP")
    # Or the guest could come to the machine's real folder through /proc/1/fd.
    if _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise _error("prctl PR_SET_DUMPABLE")


def _show_folder(folder: Path, root: Path) -> None:
    there = root / str(folder).lstrip("/")
    if folder.is_symlink():
        there.symlink_to(folder.readlink())
    elif folder.is_dir():
        there.mkdir()
        _mount(folder, there, "", _BIND | _REC)
        _make_read_only(there)


def _show_file(source: Path, there: Path, *, read_only: bool) -> None:
    there.parent.mkdir(parents=True, exist_ok=True)
    there.touch()
    _mount(source, there, "", _BIND)
    if read_only:
        _make_read_only(there)


def _make_read_only(path: Path) -> None:
    now = os.statvfs(path).f_flag
    # Flags that the host's mount has are locked in a less privileged namespace and must be repeated.
    kept = now & (_NOSUID | _NODEV | _NOEXEC | _NOATIME | _NODIRATIME)
    kept |= _RELATIME if now & 4096 else 0  # ST_RELATIME, statvfs(3), is not MS_RELATIME
    _mount("none", path, "", _BIND | _REMOUNT | _RDONLY | kept)


def _pivot(root: Path) -> None:
    old = root / "old"
    if _libc.syscall(_SYS_PIVOT_ROOT, os.fsencode(root), os.fsencode(old)) != 0:
        raise _error(f"pivot_root {root}")
    os.chdir("/")
    if _libc.umount2(b"/old", _DETACH) != 0:
        raise _error("umount /old")
    Path("/old").rmdir()


def _mount(source: str | Path, target: str | Path, kind: str, flags: int, options: str = "") -> None:
    words = (os.fsencode(source), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), options.encode())
    if _libc.mount(*words) != 0:
        raise _error(f"mount {source} on {target}")


def _error(doing: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{doing}: {os.strerror(number)}")
