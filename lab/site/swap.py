"""Replacing a folder whole: readers see the old one or the new one, and a killed writer leaves the old one."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.errors import ConfigurationError, LabDiskFull, RunError
from lab.process import disk_full_or, start_time

MARK = ".interop-lab-site"
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2  # renameat2(2)


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to write into; at the end of the block it takes the place of `folder`.

    Raises `ConfigurationError` when something else than an earlier site is there, `LabDiskFull`, `RunError`.
    """
    folder = folder.absolute()
    if folder.exists() and not _may_be_replaced(folder):
        raise ConfigurationError(
            f"{folder} is not empty and not a site of ours; nothing was written",
            hint="name a folder that does not exist yet",
        )
    draft = folder.with_name(f".{folder.name}.draft-{os.getpid()}-{start_time(os.getpid())}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _clear_dead_drafts(folder)
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        (draft / MARK).write_text("This folder was written by lab report and is replaced as a whole.\n")
        yield draft
        _put(draft, folder)
    except OSError as reason:
        found = disk_full_or(reason, f"writing {folder}")
        raise found if isinstance(found, LabDiskFull) else RunError(f"{folder}: {reason}") from reason
    finally:
        # The failed new folder, or the old one that was exchanged for it.
        shutil.rmtree(draft, ignore_errors=True)


def _may_be_replaced(folder: Path) -> bool:
    return folder.is_dir() and ((folder / MARK).is_file() or not any(folder.iterdir()))


def _put(draft: Path, folder: Path) -> None:
    try:
        draft.rename(folder)  # a folder that is empty gives way
    except OSError as reason:
        # Not asked before: another run may have put its site there in between.
        if reason.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        _exchange(draft, folder)


def _exchange(draft: Path, folder: Path) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    rename = getattr(library, "renameat2", None)
    if rename is not None:
        words = (_AT_FDCWD, os.fsencode(draft), _AT_FDCWD, os.fsencode(folder), _RENAME_EXCHANGE)
        if rename(*words) == 0:
            return
    # A file system without exchange (NFS, some overlays): two steps, of which the first can be taken back.
    old = draft.with_name(f"{draft.name}-old")
    folder.rename(old)
    try:
        draft.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _clear_dead_drafts(folder: Path) -> None:
    pattern = re.compile(rf"\.{re.escape(folder.name)}\.draft-(\d+)-(\d+)(-old)?")
    for entry in folder.parent.iterdir():
        match = pattern.fullmatch(entry.name)
        if match is None or start_time(int(match[1])) == int(match[2]):
            continue
        if match[3] and not folder.exists():
            entry.rename(folder)  # killed between the two steps: the old site is still whole
        else:
            shutil.rmtree(entry, ignore_errors=True)
