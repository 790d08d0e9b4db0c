"""Layers on disks that are made without qemu-img: they are what qemu-img would have made."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lab import process
from lab.errors import LabDiskFull
from lab.hypervisors import _qemu_overlay as overlay
from lab.hypervisors import _qemu_power as power


def _image(path: Path, size: str, image_format: str = "qcow2") -> Path:
    process.check(["qemu-img", "create", "-q", "-f", image_format, path, size], timeout_s=30)
    return path


def _told(path: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(process.check(["qemu-img", "info", "--output=json", path], timeout_s=30))
    return {key: told[key] for key in told if key not in ("filename", "actual-size", "children")}


@pytest.mark.parametrize("size", ["1M", "513M", "40G", "5T"])
def test_a_layer_is_what_qemu_img_makes(size: str, tmp_path: Path) -> None:
    below = _image(tmp_path / "below, it.qcow2", size)
    ours, theirs = tmp_path / "ours.qcow2", tmp_path / "theirs.qcow2"

    assert overlay.carried_out(power.overlay_command(below, "qcow2", ours))
    process.check(power.overlay_command(below, "qcow2", theirs), timeout_s=30)

    assert _told(ours) == _told(theirs)
    process.check(["qemu-img", "check", "-q", ours], timeout_s=30)


def test_a_layer_shows_what_lies_below_and_keeps_what_is_written(tmp_path: Path) -> None:
    below = _image(tmp_path / "below.qcow2", "8M")
    layer = tmp_path / "layer.qcow2"
    process.check(["qemu-io", "-f", "qcow2", "-c", "write -P 5 0 64k", below], timeout_s=30)
    before = below.read_bytes()

    overlay.carried_out(power.overlay_command(below, "qcow2", layer))
    process.check(["qemu-io", "-f", "qcow2", "-c", "write -P 7 1M 128k", layer], timeout_s=30)

    said = process.check(
        ["qemu-io", "-f", "qcow2", "-c", "read -P 5 0 64k", "-c", "read -P 7 1M 128k", layer], timeout_s=30
    )
    assert "verification failed" not in said
    assert below.read_bytes() == before
    process.check(["qemu-img", "check", "-q", layer], timeout_s=30)


def test_what_is_not_qcow2_below_is_left_to_qemu_img(tmp_path: Path) -> None:
    raw = _image(tmp_path / "below.raw", "1M", "raw")

    assert not overlay.carried_out(power.overlay_command(raw, "raw", tmp_path / "layer.qcow2"))
    assert not overlay.carried_out(power.overlay_command(raw, "qcow2", tmp_path / "layer.qcow2"))
    assert not (tmp_path / "layer.qcow2").exists()


def test_a_link_and_a_copy_are_what_cp_makes(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"secret")
    source.chmod(0o600)

    assert overlay.carried_out(["cp", "--link", str(source), str(tmp_path / "linked")])
    assert overlay.carried_out(["cp", "--preserve=mode", str(source), str(tmp_path / "copied")])

    assert (tmp_path / "linked").samefile(source)
    assert (tmp_path / "copied").read_bytes() == b"secret"
    assert (tmp_path / "copied").stat().st_mode & 0o777 == 0o600


def test_a_full_disk_is_told_as_one(tmp_path: Path) -> None:
    below = _image(tmp_path / "below.qcow2", "1M")

    with pytest.raises(LabDiskFull, match="no space left on this machine while making /dev/full"):
        overlay.carried_out(power.overlay_command(below, "qcow2", Path("/dev/full")))


def test_other_commands_are_left_to_their_programs() -> None:
    assert not overlay.carried_out(["qemu-img", "create", "-q", "-f", "qcow2", "x", "1M"])
    assert not overlay.carried_out(["cp", "--reflink=auto", "a", "b"])


def test_a_command_that_was_carried_out_is_also_one_that_a_shell_could_run(tmp_path: Path) -> None:
    below = _image(tmp_path / "below.qcow2", "1M")
    finished = subprocess.run(power.overlay_command(below, "qcow2", tmp_path / "layer"), check=False)

    assert finished.returncode == 0
