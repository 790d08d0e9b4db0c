"""The same guests and profile on QEMU itself and on QEMU below libvirt: a run gives the same verdicts on both."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from lab import process
from tests.hypervisors import libvirt_own as own

pytestmark = [pytest.mark.minutes, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
_HOSTS = """
hypervisors:
  vars: {ansible_connection: local}
  hosts:
    qemu: {lab_driver: qemu, lab_accelerator: tcg}
    same-by-libvirt: {lab_driver: libvirt, lab_accelerator: tcg}
"""
_GUESTS = ("jeos", "debian-12")
_MATRIX = f"""
suites_from: {ROOT}/suites
hosts: [qemu, same-by-libvirt]
guests: [{", ".join(_GUESTS)}]
profiles: [pc-bios]
suites: [smoke]
"""
Told = Sequence[Mapping[str, str]]


def _lab(*words: str | Path) -> process.Finished:
    return process.run([sys.executable, "-m", "lab", *words], timeout_s=800, cwd=ROOT)


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """Of one run of all four cells."""
    folder = tmp_path_factory.mktemp("cells")
    inventory = folder / "both"
    shutil.copytree(ROOT / "inventories/guests", folder / "guests")
    shutil.copy(ROOT / "inventories/profiles.yaml", folder)
    inventory.mkdir()
    (inventory / "hosts.yaml").write_text(_HOSTS)
    (inventory / "matrix.yaml").write_text(_MATRIX)
    try:
        # From a copy that is kept one would start warm and the other cannot.
        finished = _lab("run", inventory, "--cold", "--reports", folder / "reports")
        assert finished.status == 0, finished.stdout + finished.stderr
        (run,) = (folder / "reports/runs").iterdir()
        told: Told = json.loads(_lab("verdict", run, "--json").stdout)
    finally:
        own.end_daemons("same-by-libvirt")
    return told


@pytest.mark.parametrize("guest", _GUESTS)
def test_a_cell_gives_the_same_verdicts_on_qemu_and_on_libvirt(verdicts: Told, guest: str) -> None:
    qemu, libvirt = (_by_feature(verdicts, f"{host}/{guest}/pc-bios") for host in ("qemu", "same-by-libvirt"))

    assert libvirt == qemu
    assert list(qemu.values()).count("works") >= 5
    assert "broken" not in qemu.values()


def _by_feature(told: Told, cell: str) -> Mapping[str, str]:
    return {entry["feature"]: entry["observed"] for entry in told if entry["cell"] == cell}
