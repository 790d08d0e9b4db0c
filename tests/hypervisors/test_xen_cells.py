"""Conformance of a PV and a PVH guest on a real Xen that the lab makes: a run of the lab says that they work.

Left out are the checks that boot, save or wake a machine, which take minutes under emulation: `lab run` takes them all.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lab import process

pytestmark = [pytest.mark.minutes, pytest.mark.timeout(2900)]

ROOT = Path(__file__).parents[2]
SLOW = (
    "boot/test_reboot.py",
    "cpu/test_hot_add.py",
    "cpu/test_hot_remove.py",
    "lifecycle/test_crash_dump.py",
    "lifecycle/test_save_restore.py",
    "lifecycle/test_shutdown.py",
    "lifecycle/test_snapshot.py",
    "net/test_jumbo.py",
    "net/test_vlan.py",
    "storage/test_hotplug.py",
    "storage/test_online_resize.py",
    "storage/test_trim.py",
)
_HOSTS = """
hypervisors:
  hosts:
    xen-of-cells: {lab_driver: xen, lab_made_from: xen-host, lab_realness: emulated}
"""
_MATRIX = """
suites_from: {suites}
hosts: [xen-of-cells]
guests: [jeos]
profiles: [{profile}]
suites: [conformance]
"""


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    """A folder with the lab's own Xen host and the quicker checks; the matrix is still to be written."""
    for name in ("guests", "profiles.yaml"):
        source = ROOT / "inventories" / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    shutil.copytree(ROOT / "suites", tmp_path / "suites", ignore=shutil.ignore_patterns("__pycache__"))
    for name in SLOW:
        (tmp_path / "suites/conformance" / name).unlink()
    made = tmp_path / "real-xen"
    made.mkdir()
    (made / "hosts.yaml").write_text(_HOSTS)
    return made


def _run(inventory: Path, profile: str, reports: Path) -> tuple[process.Finished, list[dict[str, Any]]]:
    """What a run of one cell of that profile said and recorded."""
    (inventory / "matrix.yaml").write_text(_MATRIX.format(suites=inventory.parent / "suites", profile=profile))
    words = [sys.executable, "-m", "lab", "run", inventory, "--reports", reports]
    finished = process.run(words, timeout_s=1400, cwd=ROOT)
    files = list(reports.glob("runs/*/cells/**/records.jsonl"))
    assert len(files) == 1, (finished.stdout + finished.stderr)[-4000:]
    return finished, [json.loads(line) for line in files[0].read_text().splitlines()]


@pytest.mark.parametrize("profile", ["xen-pv", "xen-pvh"])
def test_a_guest_on_real_xen_conforms(inventory: Path, tmp_path: Path, profile: str) -> None:
    finished, records = _run(inventory, profile, tmp_path / "reports")
    if any((record["outcome"], record["blame"]) == ("broken", "lab") for record in records):
        # Emulated virtualisation loses a guest now and then, and the lab says that it is to blame for it.
        finished, records = _run(inventory, profile, tmp_path / "again")

    bad = [(record["check"], record["reason"]) for record in records if record["outcome"] in ("failed", "broken")]
    counted = Counter(record["outcome"] for record in records)
    assert not bad
    assert finished.status == 0, (finished.stdout + finished.stderr)[-4000:]
    assert counted["passed"] >= 35, counted
    assert {record["realness"] for record in records} == {"emulated"}
