"""The jeos image, really built and really booted, with QEMU called by hand: no driver of the lab has a part in it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lab import process, waiting
from lab.contracts import Endpoint, Image, SshLogin
from lab.guests.channels import ssh
from lab.guests.families import linux
from lab.guests.identity import Identity
from lab.inventory.models import BuildSource
from lab.provisioning import images, keys, seed
from tests.ports import own_port

pytestmark = [pytest.mark.minutes, pytest.mark.timeout(1500)]
# Emulation beside other emulated guests on two cores is slow; what is waited for comes in seconds on a quiet machine.
PATIENCE_S = 600


@dataclass(frozen=True)
class Booted:
    """A guest that runs, and where its console goes."""

    image: Image
    identity: Identity
    endpoint: Endpoint
    console: Path

    def login(self, identity: Identity) -> SshLogin:
        return SshLogin("root", keys.client_key().private, identity.host_key_public)


@pytest.fixture(scope="module")
def jeos() -> Image:
    return images.resolve(BuildSource(build="jeos"), progress=print)


def _start(image: Image, folder: Path, port: int, seed_disk: Path | None) -> subprocess.Popen[bytes]:
    disks = [f"file={folder}/root.qcow2,if=virtio,cache=unsafe"]
    process.check(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", image.disk, folder / "root.qcow2"], timeout_s=60
    )
    if seed_disk is not None:
        disks.append(f"file={seed_disk},format=raw,if=virtio,readonly=on")
    qemu = shutil.which("qemu-system-x86_64")
    assert qemu is not None, "apt-get install qemu-system-x86"
    words = [qemu, "-accel", "tcg", "-cpu", "max", "-m", "256", "-nodefaults", "-display", "none", "-no-reboot"]
    words += [word for disk in disks for word in ("-drive", disk)]
    words += ["-nic", f"user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:{port}-:22"]
    words += ["-kernel", str(image.kernel), "-initrd", str(image.initrd), "-serial", f"file:{folder}/console.log"]
    words += ["-append", f"root=/dev/vda rw console=ttyS0 {image.kernel_arguments}"]

    def running() -> subprocess.Popen[bytes] | None:
        started = subprocess.Popen(words)
        waiting.until(
            lambda: (folder / "console.log").exists() or started.poll() is not None, what="QEMU", timeout_s=PATIENCE_S
        )
        return started if started.poll() is None else None

    # A machine of another test may hold the lock of the image below for a moment: then QEMU ends at once.
    return waiting.until(running, what="QEMU to run", timeout_s=60)


def _says(console: Path, words: bytes) -> bool:
    return console.exists() and words in console.read_bytes()


@pytest.fixture(scope="module")
def booted(jeos: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    folder = tmp_path_factory.mktemp("booted")
    identity = Identity.make("first-name")
    seed.write_seed(identity, keys.client_key().public, folder / "seed.img")
    with own_port() as port:
        started = _start(jeos, folder, port, folder / "seed.img")
        try:
            waiting.until(
                lambda: _says(folder / "console.log", b"interop-lab: ready, first-name"),
                what="the guest's ready line on the console",
                timeout_s=PATIENCE_S,
            )
            yield Booted(jeos, identity, Endpoint("127.0.0.1", port), folder / "console.log")
        finally:
            process.end(started)


def test_the_guest_is_who_the_seed_says(booted: Booted) -> None:
    # Connecting proves the host key: it is pinned.
    with_key = ssh.connect(booted.endpoint, booted.login(booted.identity), timeout_s=PATIENCE_S)
    try:
        assert with_key.run(["hostname"], timeout_s=120).out == "first-name"
        assert with_key.run(["cat", "/etc/machine-id"], timeout_s=120).out == booted.identity.machine_id
    finally:
        with_key.close()


def test_a_new_identity_reaches_the_running_guest_without_cutting_the_session(booted: Booted) -> None:
    second = Identity.make("second-name")
    channel = ssh.connect(booted.endpoint, booted.login(booted.identity), timeout_s=PATIENCE_S)
    try:
        for _ in range(2):  # twice, because it may be interrupted and done again
            linux.renew_identity(channel, second, keys.client_key().public, datetime.now(UTC))
        assert channel.run(["hostname"], timeout_s=120).out == "second-name"
    finally:
        channel.close()
    again = ssh.connect(booted.endpoint, booted.login(second), timeout_s=PATIENCE_S)
    try:
        assert again.run(["cat", "/etc/machine-id"], timeout_s=120).out == second.machine_id
        linux.renew_identity(again, booted.identity, keys.client_key().public, datetime.now(UTC))
    finally:
        again.close()


def test_the_image_holds_no_identity(jeos: Image) -> None:
    debugfs = process.find("debugfs", package="e2fsprogs")

    def listed(folder: str) -> str:
        return process.check([debugfs, "-R", f"ls -p {folder}", jeos.disk], timeout_s=60)

    assert "machine-id" not in listed("/etc")
    assert "host_key" not in listed("/etc/dropbear")
    assert "authorized_keys" not in listed("/root")


def test_the_file_system_of_the_image_is_whole(jeos: Image) -> None:
    e2fsck = process.find("e2fsck", package="e2fsprogs")
    found = process.run([e2fsck, "-n", "-f", jeos.disk], timeout_s=120)
    assert found.status == 0, found.stdout


def test_without_a_seed_ssh_stays_off(jeos: Image, tmp_path: Path) -> None:
    console = tmp_path / "console.log"
    with own_port() as port:
        started = _start(jeos, tmp_path, port, None)
        try:
            waiting.until(
                lambda: _says(console, b"no seed on any disk; SSH stays off"),
                what="the guest's word on the console",
                timeout_s=PATIENCE_S,
            )
            assert b"interop-lab: ready" not in console.read_bytes()
        finally:
            process.end(started)
