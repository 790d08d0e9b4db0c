"""The cache of images: made once, checked always, whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from lab import process, waiting
from lab.errors import ImageCorrupt, LabDiskFull
from lab.inventory.models import BuildSource
from lab.provisioning import cache, images, recipes

TINY = BuildSource(build="tiny")


def _quiet(line: str) -> None:
    pass


def test_an_image_is_built_once_and_then_taken_from_the_cache(tiny) -> None:
    first = images.resolve(TINY, progress=_quiet)
    assert images.resolve(TINY, progress=_quiet) == first
    assert images.cached(TINY) == first
    assert tiny.builds() == 1
    assert first.disk.read_text() == "disk\n"
    assert first.kernel_arguments == "init=/sbin/init"
    assert first.origin.startswith("built on 20")
    assert "recipe tiny (Debian bookworm; linux-image-test 1.2-3)" in first.origin


def test_asking_for_a_cached_image_builds_nothing(tiny) -> None:
    assert images.cached(TINY) is None
    assert tiny.builds() == 0


def test_a_changed_recipe_is_another_image(tiny) -> None:
    images.resolve(TINY, progress=_quiet)
    (tiny.recipes / "tiny" / "finish.sh").write_text("#!/bin/sh\n# other\n")
    images.resolve(TINY, progress=_quiet)
    assert tiny.builds() == 2
    assert sorted(entry.current for entry in images.listing()) == [False, True]


def test_the_digest_follows_the_content(tiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = images.resolve(TINY, progress=_quiet)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "second"))
    assert images.resolve(TINY, progress=_quiet).digest == first.digest
    tiny.builder('echo more >>"$work/disk.raw"')
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "third"))
    assert images.resolve(TINY, progress=_quiet).digest != first.digest


def test_a_damaged_disk_is_put_aside_and_built_again(tiny, own_cache: Path) -> None:
    first = images.resolve(TINY, progress=_quiet)
    first.disk.chmod(0o644)
    first.disk.write_text("dusk\n")
    lines: list[str] = []
    again = images.resolve(TINY, progress=lines.append)
    assert again.disk.read_text() == "disk\n"
    assert tiny.builds() == 2
    damaged = own_cache / ".damaged" / first.disk.parent.name
    assert any(f"{first.disk} is not what it was" in line and str(damaged) in line for line in lines)
    assert (damaged / "disk.raw").read_text() == "dusk\n"


def test_verify_finds_a_damage_that_size_and_time_hide(tiny) -> None:
    image = images.resolve(TINY, progress=_quiet)
    about = image.disk.stat()
    image.disk.chmod(0o644)
    image.disk.write_text("dusk\n")
    os.utime(image.disk, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert images.cached(TINY) is not None
    with pytest.raises(ImageCorrupt) as caught:
        images.verify(TINY)
    assert f"{image.disk} is not what it was: sha256 is " in str(caught.value)
    assert f"-> delete {image.disk.parent}; the lab makes it again" in str(caught.value)
    assert [bool(row["problem"]) for row in images.verify_all()] == [True]


def test_a_shortened_disk_is_told_by_its_size(tiny) -> None:
    image = images.resolve(TINY, progress=_quiet)
    os.truncate(image.disk, 2)
    with pytest.raises(ImageCorrupt, match="has 2 bytes, it should have 5"):
        images.verify(TINY)


def test_a_missing_kernel_is_noticed(tiny) -> None:
    image = images.resolve(TINY, progress=_quiet)
    assert image.kernel is not None
    image.kernel.unlink()
    with pytest.raises(ImageCorrupt, match="vmlinuz: No such file"):
        images.verify(TINY)
    assert images.cached(TINY) is None


def test_a_damaged_manifest_is_built_again(tiny) -> None:
    image = images.resolve(TINY, progress=_quiet)
    manifest = image.disk.parent / "image.json"
    manifest.write_text('{"name": "tiny"')
    with pytest.raises(ImageCorrupt, match=r"image\.json is damaged"):
        images.verify(TINY)
    assert images.resolve(TINY, progress=_quiet).disk.exists()
    assert tiny.builds() == 2


def test_a_disk_that_was_only_touched_is_read_once_and_believed(tiny) -> None:
    image = images.resolve(TINY, progress=_quiet)
    os.utime(image.disk, ns=(1, 1))
    assert images.cached(TINY) == image
    manifest = cache.read_manifest(image.disk.parent)
    assert manifest is not None
    assert manifest.disk.mtime_ns == 1


def test_a_failed_build_leaves_nothing(tiny, own_cache: Path) -> None:
    tiny.builder("exit 25")
    with pytest.raises(Exception, match="building tiny failed"):
        images.resolve(TINY, progress=_quiet)
    assert list((own_cache / ".making").iterdir()) == []
    assert images.listing() == ()


def test_two_processes_build_one_image_once(tiny, tmp_path: Path) -> None:
    tiny.builder(f"while [ ! -e {tmp_path}/go ]; do sleep 0.02; done")
    words = tiny.in_process("print(images.resolve(BuildSource(build='tiny'), progress=print).digest)")
    started = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    waiting.until(lambda: tiny.builds() == 1, what="the first build to start", timeout_s=60)
    (tmp_path / "go").touch()
    answers = [process.communicate(timeout=120)[0].splitlines() for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert answers[0][-1] == answers[1][-1]
    assert tiny.builds() == 1


def test_who_waits_for_another_process_says_so(tiny) -> None:
    name = images.entry_name(TINY)
    lines: list[str] = []
    with cache.held(name, _quiet):
        waits = subprocess.Popen(
            tiny.in_process("images.resolve(BuildSource(build='tiny'), progress=lambda line: print(line, flush=True))"),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert waits.stdout is not None
        lines.append(waits.stdout.readline().strip())
    waits.communicate(timeout=120)
    assert lines == [f"another process makes {name}; waiting for it"]
    assert waits.returncode == 0


def test_a_killed_build_leaves_nothing_that_counts(tiny, own_cache: Path) -> None:
    tiny.builder('echo $$ >"$TMPDIR/builder"; exec sleep 600')
    builder = subprocess.Popen(tiny.in_process("images.resolve(BuildSource(build='tiny'), progress=print)"))
    pid_file = waiting.until(
        lambda: next(own_cache.glob(".making/*/builder"), None) or next(tiny.folder.glob("builder"), None),
        what="the build to be under way",
        timeout_s=60,
    )
    waiting.until(lambda: pid_file.read_text().strip(), what="its process", timeout_s=60)
    orphan = int(pid_file.read_text())
    builder.send_signal(signal.SIGKILL)
    builder.wait()
    assert images.cached(TINY) is None
    waiting.until(lambda: process.start_time(orphan) is None, what="the builder to end as well", timeout_s=60)
    leftovers = list((own_cache / ".making").iterdir())
    assert len(leftovers) == 1
    tiny.builder(":")
    assert images.resolve(TINY, progress=_quiet).disk.read_text() == "disk\n"
    assert list((own_cache / ".making").iterdir()) == []


def test_a_cache_without_space_says_so_and_keeps_nothing(tiny, tmp_path: Path) -> None:
    tiny.builder('head -c 9000000 /dev/urandom >"$work/disk.raw"')
    code = (
        "import sys\n"
        "from lab.errors import LabDiskFull\n"
        "try: images.resolve(BuildSource(build='tiny'), progress=print)\n"
        "except LabDiskFull as reason: print(reason); print(*cache.root().rglob('*'))\n"
    )
    mounted = tmp_path / "small"
    mounted.mkdir()
    script = f'mount -t tmpfs -o size=4m small {mounted} && exec "$@"'
    # An own user and mount namespace: mounting needs no root there, and nobody else sees it.
    words = ["unshare", "-rm", "sh", "-c", script, "sh", *tiny.in_process(code)]
    finished = process.run(words, timeout_s=120, environment={"XDG_CACHE_HOME": str(mounted)})
    assert finished.status == 0, finished.stderr
    assert "no space left on this machine while building tiny" in finished.stdout
    assert "disk.raw" not in finished.stdout.splitlines()[-1]


def test_a_cache_that_cannot_be_written_is_an_error_of_ours(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises((LabDiskFull, OSError)):
        images.resolve(TINY, progress=_quiet)


def test_leftovers_of_a_living_process_stay(tiny, own_cache: Path) -> None:
    folder = own_cache / ".making" / f"other-0.{os.getpid()}.{process.start_time(os.getpid())}"
    folder.mkdir(parents=True)
    cache.sweep()
    assert folder.exists()


def test_the_recipe_of_an_image_need_not_exist_to_list_it(tiny) -> None:
    images.resolve(TINY, progress=_quiet)
    (recipes.FOLDER / "tiny").rename(recipes.FOLDER / "renamed")
    (entry,) = images.listing()
    assert (entry.name, entry.current) == ("tiny", False)


def test_an_image_that_is_a_host_has_a_hypervisor_that_is_checked_like_its_other_parts(tiny) -> None:
    guest = images.resolve(TINY, progress=_quiet)
    (tiny.recipes / "tiny" / "finish.sh").write_text("#!/bin/sh\n# a host\n")
    tiny.builder('echo xen >"$work/hypervisor"')

    host = images.resolve(TINY, progress=_quiet)

    assert guest.hypervisor is None
    assert host.hypervisor is not None
    assert host.hypervisor.read_text() == "xen\n"
    assert host.digest != guest.digest
    host.hypervisor.chmod(0o644)
    host.hypervisor.write_text("sen\n")
    with pytest.raises(ImageCorrupt, match="hypervisor is not what it was"):
        images.verify(TINY)
