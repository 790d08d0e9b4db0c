"""Defects that keep a guest from coming up, or that it comes up with: arguments of the kernel, changed images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath

from lab import process
from lab.contracts import Image
from tests.defects.definition import Defect
from tests.defects.qemu_line import kernel, swapped


def _edited(*commands: str) -> Callable[[Image, Path], Image]:
    """The image with its root file system changed by commands of debugfs(8)."""

    def make(image: Image, place: Path) -> Image:
        disk, script = place / "changed.raw", place / "debugfs-commands"
        process.check(["cp", "--sparse=always", image.disk, disk], timeout_s=120)
        disk.chmod(0o644)
        script.write_text("".join(f"{command}\n" for command in commands))
        process.check([process.find("debugfs", package="e2fsprogs"), "-w", "-f", script, disk], timeout_s=60)
        digest = hashlib.sha256("\n".join((image.digest, *commands)).encode()).hexdigest()
        return replace(image, disk=disk, digest=f"sha256:{digest}")

    return make


def _with_file(path: PurePosixPath, text: str) -> Callable[[Image, Path], Image]:
    """The image with another content of one file, which can be executed."""

    def make(image: Image, place: Path) -> Image:
        source = place / "seeded-file"
        source.write_text(text)
        name = path.name
        commands = (f"cd {path.parent}", f"rm {name}", f"write {source} {name}", f"sif {name} mode 0100755")
        return _edited(*commands)(image, place)

    return make


LIBRARY = PurePosixPath("/usr/lib/interop-lab")

DEFECTS = (
    Defect(
        name="panic-at-boot",
        what="The first program of the guest is not there, and its kernel panics.",
        breaks=("boot.core",),
        says="panicked",
        line=kernel("init=/nowhere"),
    ),
    Defect(
        name="hang-at-boot",
        what="The boot stops before the network is up and stays silent.",
        breaks=("boot.core",),
        says="hung|silent|stopped",
        image=_with_file(LIBRARY / "boot", "#!/bin/busybox sh\nexec sleep 100000\n"),
        boot_timeout_s=45,
    ),
    Defect(
        name="root-disk-missing",
        what="The kernel is told of a root disk that is not there.",
        breaks=("boot.core",),
        says="root",
        line=kernel("root=/dev/vdz"),
        boot_timeout_s=300,  # the guest itself waits half a minute of its own, slow time
    ),
    Defect(
        name="root-disk-swapped",
        what="The root disk and the empty disk are in each other's place.",
        breaks=("boot.core",),
        says="root",
        line=swapped("root", "data"),
    ),
    Defect(
        name="card-without-driver",
        what="The guest has no driver for its network card.",
        breaks=("boot.core",),
        says="network",
        line=kernel("module_blacklist=virtio_net"),
        boot_timeout_s=60,
    ),
    Defect(
        name="no-ssh-server",
        what="The guest comes up, and nothing answers where SSH should.",
        breaks=("boot.core",),
        says="SSH",
        image=_with_file(LIBRARY / "ssh-server", "#!/bin/busybox sh\nexit 0\n"),
        boot_timeout_s=60,
    ),
    Defect(
        name="root-torn",
        what="The image's file system was not unmounted when the image was made.",
        breaks=("boot.core",),
        says="was not clean",
        image=_edited("feature needs_recovery"),
    ),
)
