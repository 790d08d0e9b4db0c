"""What the tests of images share: a cache of their own, and a recipe whose builder is a shell script."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from lab.provisioning import build_sources, recipes

RECIPE = """\
title = "A recipe for tests"
suite = "bookworm"
variant = "extract"
packages = ["busybox-static"]
disk_mib = 1
arch = "x86_64"
kernel_arguments = "init=/sbin/init"
finish = "finish.sh"
files = "files"
shared = []
"""

# Stands for mmdebstrap: makes what a recipe's finish.sh makes, and hands it over the same way.
BUILDER = """\
#!/bin/sh
set -eu
echo once >>{folder}/builds
echo "I: downloading packages with apt..."
work=$(mktemp -d "$TMPDIR/fake.XXXXXX")
mkdir -p "$work/initrd-tree/bin"
echo kernel >"$work/vmlinuz"
echo disk >"$work/disk.raw"
echo "linux-image-test 1.2-3" >"$work/packages"
echo init >"$work/initrd-tree/init"
{extra}
exec perl -e 'open(STDOUT, ">&=", $ENV{{LAB_OUT}}) or die $!; exec @ARGV' tar -C "$work" -S -cf - .
"""


class FakeRecipe:
    """The recipe "tiny", its builder, and how often that ran."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recipes = folder / "recipes"
        tiny = self.recipes / "tiny"
        (tiny / "files" / "etc").mkdir(parents=True)
        (tiny / "recipe.toml").write_text(RECIPE)
        (tiny / "finish.sh").write_text("#!/bin/sh\n")
        (tiny / "files" / "etc" / "hostname").write_text("localhost\n")
        (folder / "bin").mkdir()
        (folder / "sources.list").write_text("deb http://mirror.test/debian bookworm main\n")
        (folder / "keyring.gpg").write_bytes(b"")
        self.builder(":")

    def builder(self, extra: str) -> None:
        """Make the builder do `extra` (shell) before it hands over what it made."""
        path = self.folder / "bin" / "mmdebstrap"
        path.write_text(BUILDER.format(folder=self.folder, extra=extra))
        path.chmod(0o755)

    def builds(self) -> int:
        path = self.folder / "builds"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def in_process(self, code: str) -> Sequence[str]:
        """Words that run Python code in a process of its own, with this recipe."""
        import sys

        before = (
            "from pathlib import Path; from lab.provisioning import recipes, build_sources, images, cache; "
            "from lab.inventory.models import BuildSource; "
            f"recipes.FOLDER = Path({str(self.recipes)!r}); "
            f"build_sources.KEYRING = Path({str(self.folder / 'keyring.gpg')!r}); "
        )
        return [sys.executable, "-c", before + code]


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache and a state folder that nobody else uses; the path is the cache of images."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "cache" / "interop-lab" / "images"


@pytest.fixture
def tiny(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> FakeRecipe:
    """The fake recipe in place of the real ones."""
    folder = tmp_path / "fake"
    folder.mkdir()
    fake = FakeRecipe(folder)
    monkeypatch.setattr(recipes, "FOLDER", fake.recipes)
    monkeypatch.setattr(build_sources, "KEYRING", folder / "keyring.gpg")
    monkeypatch.setenv("LAB_APT_SOURCES", str(folder / "sources.list"))
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(folder))
    return fake


@pytest.fixture
def said() -> Callable[[], list[str]]:
    """A list that is also a progress callback: `said()` is the list, `said().append` the callback."""
    lines: list[str] = []
    return lambda: lines
