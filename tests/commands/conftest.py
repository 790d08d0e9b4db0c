"""What the tests of commands share: an inventory of simulated hosts in a place of its own, and a way to call `lab`."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab import cli
from tests.commands.made import Call, Made

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An inventory that no test changes, because asking Ansible for its hosts costs a second.

    Hosts `sim` (no fault) and one for each fault, called as the fault.
    """
    top = tmp_path_factory.mktemp("commands")
    disk = top / "disk.raw"
    disk.write_bytes(bytes(512))
    folder = top / "lab"
    folder.mkdir()
    faults = ("panic", "no-ssh", "vanishes")
    hosts = "".join(f"    {fault}:\n      lab_driver: simulated\n      lab_fault: {fault}\n" for fault in faults)
    (folder / "hosts.yaml").write_text(f"hypervisors:\n  hosts:\n    sim:\n      lab_driver: simulated\n{hosts}")
    (folder / "matrix.yaml").write_text(
        f"hosts: [sim]\nguests: [thing]\nprofiles: [pc]\nsuites: [smoke]\nsuites_from: {REPOSITORY / 'suites'}\n"
    )
    (top / "profiles.yaml").write_text(
        "pc: {firmware: bios, chipset: pc, disk: virtio, nic: virtio, vcpus: 1, memory_mib: 64}\n"
        "e1000e: {like: pc, nic: e1000e}\n"
    )
    (top / "guests").mkdir()
    (top / "guests" / "thing.yaml").write_text(
        "title: A thing\nfamily: linux\nos: {name: thing, version: '1'}\ndrivers: [virtio]\n"
        f"image: {{file: ../disk.raw, format: raw, sha256: {hashlib.sha256(disk.read_bytes()).hexdigest()}}}\n"
    )
    return folder


@pytest.fixture
def made(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """That inventory, and a state of this test's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(shared.parent / "cache"))
    monkeypatch.chdir(shared.parent)
    return Made(shared)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Call `lab` in this process: exit code, standard output, standard error."""

    def called(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            cli.main([str(word) for word in words])
        out, err = capsys.readouterr()
        return int(str(caught.value.code)), out, err

    return called


@pytest.fixture
def call_apart() -> Call:
    """The same in a process of its own, for what replaces its process or reads its terminal."""

    def called(*words: object) -> tuple[int, str, str]:
        ended = subprocess.run(
            [sys.executable, "-m", "lab", *map(str, words)],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        return ended.returncode, ended.stdout, ended.stderr

    return called
