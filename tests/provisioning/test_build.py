"""Building: what becomes of what the builder makes and says."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from lab.errors import ImageError, LabDiskFull, MissingTool
from lab.provisioning import build, recipes


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def test_a_build_gives_disk_kernel_initrd_and_versions(tiny, work: Path) -> None:
    lines: list[str] = []
    built = build.build(recipes.load("tiny"), work, lines.append)
    assert built.disk.read_text() == "disk\n"
    assert built.kernel.read_text() == "kernel\n"
    assert built.initrd.read_bytes().startswith(b"070701")
    assert built.packages == {"linux-image-test": "1.2-3"}
    assert lines == ["downloading packages with apt..."]


def test_a_builder_that_fails_is_quoted(tiny, work: Path) -> None:
    tiny.builder("echo 'E: Unable to locate package nonsense' >&2; exit 25")
    with pytest.raises(ImageError, match="building tiny failed with status 25") as caught:
        build.build(recipes.load("tiny"), work, lambda line: None)
    assert "E: Unable to locate package nonsense" in str(caught.value)


def test_a_mirror_that_cannot_be_reached_gives_advice(tiny, work: Path) -> None:
    tiny.builder("echo 'E: Failed to fetch http://mirror.test/debian' >&2; exit 25")
    with pytest.raises(ImageError, match="does `apt-get update` work on this machine"):
        build.build(recipes.load("tiny"), work, lambda line: None)


def test_user_namespaces_that_are_off_give_advice(tiny, work: Path) -> None:
    tiny.builder("echo 'E: unshare failed: Operation not permitted' >&2; exit 1")
    with pytest.raises(ImageError, match="run as root, or apt-get install uidmap"):
        build.build(recipes.load("tiny"), work, lambda line: None)


def test_a_builder_that_makes_nothing_is_an_error(tiny, work: Path) -> None:
    tiny.builder("exit 0")
    with pytest.raises(ImageError, match="building tiny failed"):
        build.build(recipes.load("tiny"), work, lambda line: None)


def test_a_full_disk_is_told_from_other_failures(tiny, work: Path) -> None:
    tiny.builder("head -c 9000 /dev/zero >/dev/full")
    with pytest.raises(LabDiskFull, match="no space left on this machine while building tiny") as caught:
        build.build(recipes.load("tiny"), work, lambda line: None)
    assert "point XDG_CACHE_HOME at a larger disk" in str(caught.value)


def test_a_missing_builder_is_named_with_its_package(tiny, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(MissingTool, match=r"mmdebstrap is not on this machine\n  -> apt-get install mmdebstrap"):
        build.build(recipes.load("tiny"), work, lambda line: None)


def test_a_missing_keyring_is_named_with_its_package(tiny, work: Path) -> None:
    (tiny.folder / "keyring.gpg").unlink()
    with pytest.raises(ImageError, match="apt-get install debian-archive-keyring"):
        build.build(recipes.load("tiny"), work, lambda line: None)


def test_scripts_of_a_kit_are_executable_and_nothing_belongs_to_us(tiny, work: Path) -> None:
    (tiny.recipes / "tiny" / "finish.sh").chmod(0o600)
    build.write_kit(recipes.load("tiny"), work / "kit.tar")
    with tarfile.open(work / "kit.tar") as kit:
        members = {member.name: member for member in kit}
    assert members["finish.sh"].mode == 0o755
    assert members["files/etc/hostname"].mode == 0o644
    assert {(member.uid, member.gid) for member in members.values()} == {(0, 0)}
