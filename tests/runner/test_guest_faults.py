"""Guests that do not come up: each has its own error, blame and last words, and the rest of its cell is blocked."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.inventory.models import BuildSource
from lab.provisioning import images

pytestmark = [pytest.mark.minutes, pytest.mark.timeout(1200)]

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Fault:
    """How to spoil a guest, and what must be said of it."""

    arguments: str = ""  # of the kernel, beside the image's own
    kernel: bool = True
    empty_disk: bool = False
    seed: str = "lab"
    port: int = 22
    boot_timeout_s: int = 240  # far more than any of these need to show what is wrong


FAULTS: Mapping[str, Fault] = {
    # busybox without an applet's name prints its help and ends, and a first process must not end.
    "panics": Fault(arguments="rdinit=/bin/busybox"),
    "no-system": Fault(kernel=False, empty_disk=True),
    "no-root": Fault(empty_disk=True),
    "hangs": Fault(arguments="init=/bin/cat", boot_timeout_s=60),
    "resets": Fault(arguments="rdinit=/bin/busybox panic=1"),
    "no-network": Fault(arguments="lab.ip=192.0.2.7/24,192.0.2.1"),
    "no-ssh": Fault(port=2222),
    "no-seed": Fault(seed="none", boot_timeout_s=120),
}


@pytest.fixture(scope="module")
def records(shared_lab: Any) -> Mapping[str, list[dict[str, Any]]]:
    """One run with a cell for each fault; its records by guest."""
    inventories = shared_lab.place / "inventories"
    shutil.copytree(REPOSITORY / "inventories" / "local", inventories / "local")
    shutil.copy(REPOSITORY / "inventories" / "profiles.yaml", inventories)
    image = images.resolve(BuildSource(build="jeos"), progress=lambda line: None)
    empty = shared_lab.place / "empty.raw"
    with empty.open("wb") as file:
        file.truncate(16 << 20)
    (inventories / "guests").mkdir()
    for name, fault in FAULTS.items():
        disk = empty if fault.empty_disk else image.disk
        digest = hashlib.sha256(disk.read_bytes()).hexdigest()
        lines = [
            f"title: a guest that {name}",
            "family: linux",
            "os: {name: debian, version: '12'}",
            f"seed: {fault.seed}",
            f"channel: {{port: {fault.port}}}",
            f"boot_timeout_s: {fault.boot_timeout_s}",
            "image:",
            f"  file: {disk}",
            f"  format: {'raw' if fault.empty_disk else image.disk_format}",
            f"  sha256: {digest}",
        ]
        if fault.kernel:
            arguments = f"{image.kernel_arguments} {fault.arguments}".strip()
            lines += [f"  kernel: {image.kernel}", f"  initrd: {image.initrd}", f"  kernel_arguments: '{arguments}'"]
        (inventories / "guests" / f"{name}.yaml").write_text("\n".join(lines) + "\n")
    (inventories / "local" / "matrix.yaml").write_text(
        f"hosts: [qemu]\nguests: [{', '.join(FAULTS)}]\nprofiles: [pc-bios]\nsuites: [smoke]\n"
        f"suites_from: {REPOSITORY / 'suites'}\n"
    )
    shared_lab.inventory = inventories / "local"
    shared_lab.keep_images_apart()
    status, out = shared_lab.run()
    assert status == 1, out
    found: dict[str, list[dict[str, Any]]] = {}
    for record in shared_lab.records(shared_lab.runs()[0]):
        found.setdefault(record["cell"].split("/")[1], []).append(record)
    return found


@pytest.mark.parametrize(
    ("guest", "verdict", "words"),
    [
        ("panics", ("failed", "guest"), "kernel panic"),
        ("no-system", ("failed", "product"), "No bootable device"),
        ("no-root", ("failed", "product"), "root device"),
        ("hangs", ("failed", "product"), "GuestHung"),
        ("resets", ("failed", "guest"), "kernel panic"),
        ("no-network", ("failed", "product"), "nothing of the guest answers on the network"),
        ("no-ssh", ("failed", "product"), "nothing listens on its SSH port"),
        ("no-seed", ("broken", "lab"), "no seed on any disk"),
    ],
)
def test_a_guest_that_does_not_come_up_is_told_with_blame(
    records: Mapping[str, list[dict[str, Any]]], guest: str, verdict: tuple[str, str], words: str
) -> None:
    decisive = [record for record in records[guest] if record["outcome"] in ("failed", "broken")]

    assert [(record["outcome"], record["blame"]) for record in decisive] == [verdict], decisive
    assert words.lower() in decisive[0]["reason"].lower()


@pytest.mark.parametrize("guest", FAULTS)
def test_one_fault_is_one_failure_and_the_rest_is_blocked_by_it(
    records: Mapping[str, list[dict[str, Any]]], guest: str
) -> None:
    outcomes = [record["outcome"] for record in records[guest]]

    assert outcomes.count("failed") + outcomes.count("broken") == 1
    assert "passed" not in outcomes
    assert outcomes.count("blocked") > 3
    assert set(outcomes) <= {"failed", "broken", "blocked", "not_applicable", "unsupported"}
