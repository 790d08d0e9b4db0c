"""A cell of nothing, run once in the server that cells fork from, so that cells need not be the first.

Who runs Python code for the first time fills its caches, and in a forked process copies the memory that they are in:
that was nearly half of what a cell with one check costs (docs/decisions/0024). The check, the host and the guest are
ours; the suites, whose code may crash or hang, are not touched.
"""

from __future__ import annotations

import os
import sys
import tempfile
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

from lab import log, process
from lab.checking import prepared
from lab.contracts import Cell, Firmware, Owner, Profile, Realness
from lab.hypervisors import simulated
from lab.inventory.models import GuestEntry, Host, Inventory, Matrix
from lab.results.layout import AttemptLayout
from lab.runner import cell
from lab.runner.work import CellWork, Progress

_log = log.get(__name__)

_SUITE = "conformance"
_FEATURE, _FILE = "rehearsal.nothing", f"{_SUITE}/rehearsal/test_nothing.py"
_CATALOGUE = f"""features:
- {{id: {_FEATURE}, area: Rehearsal, meaning: Nothing., families: [linux], hypervisors: [qemu]}}
"""
_CHECK = f'''"""Nothing."""

from lab.suite import check


@check("{_FEATURE}")
def test_nothing(hypervisor) -> None:
    """Catches nothing."""
    assert hypervisor.name
'''
_CELL = Cell("rehearsal", "nobody", "nothing")


def rehearse() -> None:
    """Run it in a folder that is gone afterwards. Whatever goes wrong costs the cells time and nothing else."""
    try:
        with tempfile.TemporaryDirectory(prefix="lab-rehearsal-") as name:
            _run(Path(name).resolve())
    except Exception as reason:  # noqa: BLE001 - a server that ends here would end the run
        _log.info("rehearsal.failed", reason=f"{type(reason).__name__}: {reason}")


def _run(folder: Path) -> None:
    suites = folder / "suites"
    (suites / _FILE).parent.mkdir(parents=True)
    (suites / "features.yaml").write_text(_CATALOGUE)
    (suites / _FILE).write_text(_CHECK)
    prepared.ahead(suites)
    before = set(sys.modules)
    try:
        cell.run(_work(folder, suites), suites, _packed)
    finally:
        prepared.forget(suites)
        for name in set(sys.modules) - before:
            if name.partition(".")[0] == _SUITE:
                del sys.modules[name]


def _packed(progress: Progress) -> None:
    """What sending it to a controller starts with."""
    ForkingPickler.dumps(progress)


def _work(folder: Path, suites: Path) -> CellWork:
    guest = GuestEntry.model_validate(
        {"name": _CELL.guest, "title": "Nobody", "family": "linux", "os": {"name": "none", "version": "0"}}
        | {"image": {"build": "jeos"}}
    )
    host = Host(_CELL.host, "simulated", simulated.Settings(), Realness.SIMULATED)
    profile = Profile(_CELL.profile, Firmware.BIOS, "pc", "virtio", "virtio", 1, 64)
    matrix = Matrix((_CELL.host,), (_CELL.guest,), (_CELL.profile,), ("conformance",))
    run = "20260101-000000-0000"
    return CellWork(
        run=run,
        cell=_CELL,
        checks=(f"{_FILE}::test_nothing",),
        inventory=Inventory(folder, {host.name: host}, {guest.name: guest}, {profile.name: profile}, matrix, suites),
        layout=AttemptLayout(folder / "attempt-1", _CELL, 1),
        owner=Owner(run, _CELL.name, os.getpid(), process.start_time(os.getpid()) or 0),
        realness=Realness.SIMULATED,
        use_warm=False,
        command="",
        known_issues=(),
    )
