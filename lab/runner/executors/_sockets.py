"""Where the server that forks cells listens: a folder that names its owner, so that it goes also after a kill."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from multiprocessing import util
from pathlib import Path

from lab import process

_OWNED = re.compile(r"interop-lab-(\d+)\.(\d+)")
# An address of a UNIX socket has 107 bytes (unix(7)). Ours takes 32 of them for the folder of a process, and
# multiprocessing 34 for "/pymp-........" and "/listener-........" below it.
_LONGEST_BASE = 40
_SHORT_BASE = Path("/tmp")  # noqa: S108 - the folder in it is made with mkdir, for this user alone


def prepare() -> None:
    """Give this process's `multiprocessing` its folder and remove those of dead processes. Safe to call twice.

    By itself it makes one that only its own end removes, and a process that is killed has no such end.
    Raises `LabDiskFull`, `CommandFailed`.
    """
    base = _base()
    folder = base / f"interop-lab-{os.getpid()}.{process.start_time(os.getpid())}"
    if folder.exists():
        return
    _clear_dead(base)
    try:
        folder.mkdir(mode=0o700)
    except OSError as reason:
        raise process.disk_full_or(reason, f"making {folder}") from reason
    # After multiprocessing has removed what it made inside, which it does at -100.
    util.Finalize(None, shutil.rmtree, args=(folder,), kwargs={"ignore_errors": True}, exitpriority=-200)
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        util.get_temp_dir()  # it is made once for a process and kept
    finally:
        tempfile.tempdir = before


def _base() -> Path:
    """The user's folder for temporary files, unless its name is too long for a socket in it."""
    wanted = Path(tempfile.gettempdir())
    return wanted if len(os.fsencode(wanted)) <= _LONGEST_BASE else _SHORT_BASE


def _clear_dead(base: Path) -> None:
    for entry in base.glob("interop-lab-*"):
        owner = _OWNED.fullmatch(entry.name)
        if owner is None or process.is_alive(int(owner[1]), int(owner[2])):
            continue
        if entry.lstat().st_uid == os.getuid() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
