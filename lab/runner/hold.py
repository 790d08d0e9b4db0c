"""Hold: which processes may write to a run; a hold ends with its process, however that ends.

The holds are locks on folders of the run (flock(2)), so nothing has to be removed after a power cut.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab import waiting
from lab.errors import LabBusy, RunError
from lab.results.layout import RunLayout

PATIENCE_S = 60.0
"""For the cells of a dead controller, which notice within a second and then undo what they made."""


@contextmanager
def as_controller(layout: RunLayout) -> Iterator[None]:
    """Be the only controller of a run, after the cells of every earlier one have ended.

    Raises `LabBusy` when another controller lives, `WaitedTooLong` when a cell does not end, `RunError` when the run
    is not there.
    """
    with _lock(layout.root, fcntl.LOCK_EX) as is_mine:
        if not is_mine:
            raise LabBusy(
                f"{layout.root.name} is still being run by another process",
                hint="wait for it, or end it with Ctrl-C where it runs",
            )
        layout.cells.mkdir(exist_ok=True)
        waiting.until(
            lambda: _nobody_holds(layout.cells),
            what=f"the cells of the dead controller of {layout.root.name} to end",
            timeout_s=PATIENCE_S,
        )
        yield


@contextmanager
def as_cell(cells: Path) -> Iterator[bool]:
    """Hold a run, by the folder of its cells, as one of them; false while another controller takes it over."""
    with _lock(cells, fcntl.LOCK_SH) as is_mine:
        yield is_mine


def _nobody_holds(folder: Path) -> bool:
    with _lock(folder, fcntl.LOCK_EX) as is_mine:
        return is_mine


@contextmanager
def _lock(folder: Path, kind: int) -> Iterator[bool]:
    try:
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as reason:
        raise RunError(f"{folder} cannot be held: {reason.strerror}") from reason
    try:
        try:
            fcntl.flock(held, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(held)
