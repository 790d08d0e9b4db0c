"""Pruning: what nothing can start from goes, what a machine or an inventory needs stays."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab import hypervisors, locations
from lab.contracts import Firmware, MachineSpec, Profile
from lab.errors import HostError
from lab.hypervisors import _qemu_warm
from lab.inventory.models import BuildSource, FileSource
from lab.provisioning import cache, images, prune

PROFILE = Profile("p", Firmware.BIOS, "pc", "virtio", "virtio", 1, 64)


class Host:
    """A driver and its host, whose keys say from which image and profile they are."""

    RUNS_HERE = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def refuses(self, profile: Profile) -> str | None:
        return None

    @contextmanager
    def connect(self, name: str, settings: object) -> Iterator[Any]:
        yield self

    def cached(self) -> Mapping[str, Path]:
        return {path.name: path for path in self.folder.iterdir()}

    def cache_keys(self, spec: MachineSpec) -> Sequence[str]:
        assert spec.data_disk_mib > 0
        return (f"{spec.image.digest[-12:]}-{spec.profile.name}",)

    def copy(self, key: str) -> Path:
        path = self.folder / key
        path.mkdir()
        (path / "state").write_bytes(bytes(8192))
        return path


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    folder = tmp_path / "copies"
    folder.mkdir()
    made = Host(folder)
    monkeypatch.setattr(hypervisors, "load", lambda name: made)
    return made


def inventory(*sources: Any) -> Any:
    guests = {
        str(number): SimpleNamespace(name=f"g{number}", image=source, seed="lab", missing=lambda: None)
        for number, source in enumerate(sources)
    }
    hosts = {"h": SimpleNamespace(name="h", driver="d", settings=None)}
    return SimpleNamespace(guests=guests, hosts=hosts, profiles={"p": PROFILE}, profile_of=lambda cell: PROFILE)


def names(found: Sequence[prune.Leftover]) -> list[str]:
    return [leftover.path.name for leftover in found]


def make(source: Any) -> Path:
    images.resolve(source, progress=lambda line: None)
    return cache.root() / images.entry_name(source)


def test_an_image_whose_recipe_has_changed_goes_and_its_successor_stays(tiny: Any, host: Host) -> None:
    old = make(BuildSource(build="tiny"))
    (tiny.recipes / "tiny" / "finish.sh").write_text("#!/bin/sh\n# another\n")
    new = make(BuildSource(build="tiny"))

    found = prune.find([inventory(BuildSource(build="tiny"))])
    prune.remove(found)

    assert [(it.path, it.why) for it in found] == [(old, "its recipe has changed")]
    assert found[0].bytes_freed > 0
    assert (old.exists(), new.is_dir()) == (False, True)
    assert [path.name for path in cache.root().iterdir() if path.name.startswith(".pruned")] == []


def test_finding_alone_removes_nothing(tiny: Any, host: Host) -> None:
    old = make(BuildSource(build="tiny"))
    (tiny.recipes / "tiny" / "finish.sh").write_text("#!/bin/sh\n# another\n")

    assert names(prune.find([inventory()])) == [old.name]
    assert old.is_dir()


def test_an_image_from_a_recipe_stays_although_no_guest_is_made_from_it(tiny: Any, host: Host) -> None:
    make(BuildSource(build="tiny"))

    assert prune.find([inventory()]) == []


def test_the_image_of_a_file_stays_as_long_as_one_inventory_names_it(
    own_cache: Path, host: Host, tmp_path: Path
) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(bytes(512))
    source = FileSource(file=disk, format="raw", sha256=cache.sha256_of(disk))
    folder = make(source)

    assert prune.find([inventory(), inventory(source)]) == []
    assert names(prune.find([inventory()])) == [folder.name]


def test_what_a_machine_stands_on_stays_whoever_made_it(tiny: Any, host: Host) -> None:
    old = make(BuildSource(build="tiny"))
    (tiny.recipes / "tiny" / "finish.sh").write_text("#!/bin/sh\n# another\n")
    mark = locations.state() / "machines" / "qemu" / "elsewhere" / "m" / "machine.json"
    mark.parent.mkdir(parents=True)
    mark.write_text(json.dumps({"spec": {"image": {"disk": str(old / "disk.raw")}}}))

    assert prune.find([inventory()]) == []


def test_saved_machines_of_another_image_or_profile_go(tiny: Any, host: Host) -> None:
    make(BuildSource(build="tiny"))
    image = images.cached(BuildSource(build="tiny"))
    assert image is not None
    good = host.copy(f"{image.digest[-12:]}-p")
    host.copy(f"{image.digest[-12:]}-q")
    host.copy("0123456789ab-p")

    found = prune.find([inventory(BuildSource(build="tiny"))])
    prune.remove(found)

    assert sorted(names(found)) == sorted(["0123456789ab-p", f"{image.digest[-12:]}-q"])
    assert list(host.folder.iterdir()) == [good]


def test_a_damaged_image_that_was_put_aside_goes(tiny: Any, host: Host) -> None:
    aside = cache.set_aside(make(BuildSource(build="tiny")))

    found = prune.find([inventory()])

    assert [(it.path, it.why) for it in found] == [(aside, "it is damaged and was put aside")]


def test_nothing_goes_when_a_host_cannot_say_what_it_uses(
    tiny: Any, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(name: str, settings: object) -> Any:
        raise HostError("no QEMU here")

    monkeypatch.setattr(host, "connect", connect)

    with pytest.raises(HostError, match="no QEMU here"):
        prune.find([inventory()])


def test_what_another_process_removed_meanwhile_is_no_error(tiny: Any, host: Host, tmp_path: Path) -> None:
    prune.remove([prune.Leftover(tmp_path / "gone", "image", "why", 0)])


@pytest.mark.parametrize(("pid", "goes"), [(1, False), (2**22 + 1, True)])
def test_a_half_written_copy_goes_when_nobody_can_be_writing_it(own_cache: Path, pid: int, goes: bool) -> None:
    draft = locations.cache() / "warm" / "qemu" / f".draft-0123456789ab-{pid}-01234567"
    draft.mkdir(parents=True)

    assert (draft in _qemu_warm.every().values()) is goes


def test_as_json_says_what_and_how_much(tmp_path: Path) -> None:
    found = [prune.Leftover(tmp_path / "x", "image x", "old", 4096), prune.Leftover(tmp_path / "y", "y", "old", 1)]

    assert prune.as_json(found, dry_run=True) == {
        "schema": 1,
        "dry_run": True,
        "removed": [
            {"path": str(tmp_path / "x"), "what": "image x", "why": "old", "bytes": 4096},
            {"path": str(tmp_path / "y"), "what": "y", "why": "old", "bytes": 1},
        ],
        "bytes": 4097,
    }
