"""Frozen hosts in the cache: what they are named by, which are believed, what killed processes left."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab import hypervisors
from lab.contracts import Image
from lab.errors import HypervisorRefused
from lab.provisioning import hosts, images, made_frozen, made_qemu, prune

KEY = "ab" * 32
IMAGE = Image(
    name="xen-host",
    digest="sha256:1",
    disk=Path("/images/disk.raw"),
    disk_format="raw",
    kernel=Path("/images/vmlinuz"),
    initrd=Path("/images/initrd"),
    hypervisor=Path("/images/hypervisor"),
)


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The build of QEMU that is on this machine; a test may change it."""
    builds = ["7.2.22"]
    monkeypatch.setattr(made_qemu, "find", lambda: ("/usr/bin/qemu", builds[0]))
    return builds


@pytest.fixture
def copy() -> Path:
    home = made_frozen.place(KEY)
    home.mkdir(parents=True)
    (home / "state").write_bytes(b"memory")
    (home / "root.qcow2").write_bytes(b"disk")
    crc = made_frozen.checksum(home / "state")
    sizes = '{"state": 6, "root.qcow2": 4}'
    (home / "manifest.json").write_text(f'{{"schema": 1, "sizes": {sizes}, "state_crc32": {crc}}}')
    return home


def test_a_host_is_frozen_anew_for_another_build_of_the_emulator(build: list[str]) -> None:
    first = made_frozen.key(IMAGE)
    build[0] = "7.2.23"

    assert made_frozen.key(IMAGE) != first


def test_a_host_is_frozen_anew_for_another_command_line(build: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    first = made_frozen.key(IMAGE)
    monkeypatch.setattr(made_qemu, "MEMORY_MIB", 4096)

    assert made_frozen.key(IMAGE) != first


def test_a_whole_copy_is_believed(copy: Path) -> None:
    assert made_frozen.exists(KEY)


@pytest.mark.parametrize("part", ["state", "root.qcow2", "manifest.json"])
def test_a_copy_that_lacks_a_part_is_not_believed(copy: Path, part: str) -> None:
    (copy / part).unlink()

    assert not made_frozen.exists(KEY)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"sizes": []}'])
def test_a_damaged_manifest_is_not_believed(copy: Path, text: str) -> None:
    (copy / "manifest.json").write_text(text)

    assert not made_frozen.exists(KEY)


def test_memory_that_changed_is_refused(copy: Path) -> None:
    (copy / "state").write_bytes(b"Memory")
    found = made_frozen.checksum(copy / "state")

    with pytest.raises(HypervisorRefused, match="the saved memory is not what was written"):
        made_frozen.verifier(KEY, lambda: found)()


def test_forgetting_may_be_repeated(copy: Path) -> None:
    made_frozen.forget(KEY)
    made_frozen.forget(KEY)

    assert not made_frozen.exists(KEY)
    assert made_frozen.every() == {}


def test_what_a_living_process_freezes_is_nobodys_leftover(copy: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    dead = f".draft-abababababab-{int(ended.stdout)}-00000000"
    (copy.parent / dead).mkdir()
    (copy.parent / f".draft-abababababab-{os.getpid()}-00000000").mkdir()

    assert set(made_frozen.every()) == {KEY, dead}


def test_prune_keeps_the_copy_that_a_host_is_restored_from(
    build: list[str], copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = made_frozen.place(made_frozen.key(IMAGE))
    copy.rename(used)
    (copy / "x").mkdir(parents=True)
    cached = {"xen-host": IMAGE}
    monkeypatch.setattr(images, "cached", lambda source: cached.get(source.build))
    monkeypatch.setattr(hosts, "made_from", lambda host: host.settings)
    monkeypatch.setattr(hypervisors, "load", lambda name: SimpleNamespace(RUNS_HERE=False))
    host = SimpleNamespace(name="xen-local", driver="xen", settings="xen-host")
    inventory: Any = SimpleNamespace(hosts={"xen-local": host}, guests={}, profiles={})

    assert [(it.path, it.why) for it in prune.find([inventory])] == [
        (copy, "no host of these inventories is restored from it")
    ]
