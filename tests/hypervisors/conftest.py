"""What the driver tests share: directories of their own, and guests of one sector that QEMU starts in no time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import process
from lab.contracts import Firmware, Image, MachineSpec, Owner, Profile
from lab.hypervisors import qemu
from lab.hypervisors._qemu_host import QemuHost

SECTORS = {
    "idle": "f4ebfd",  # hlt; jmp back
    "endless": "baf803b078eeebfd",  # writes x to COM1 for ever
    "echoing": "fabaf803b03eeebafd03eca80174fbb2f8eceeebf2",  # alone (cli), writes > to COM1, then all that comes in
    "resetting": "b0fee664f4ebfd",  # asks the keyboard controller for a reset
    "panicking": "ba0505b001eef4ebfd",  # tells pvpanic, port 0x505, that it panicked
    "powering_off": "ba0406b80020eff4ebfd",  # ACPI S5 through the register where SeaBIOS puts it
}


@pytest.fixture(autouse=True)
def own_directories(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.path.name.startswith("test_qemu") or "minutes" in request.keywords:
        return  # guests that really boot use the image that everybody uses
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def owner() -> Owner:
    return Owner("run", "host/guest/profile", os.getpid(), process.start_time(os.getpid()) or 0)


@pytest.fixture
def profile() -> Profile:
    return Profile("plain", Firmware.BIOS, "pc", "virtio", "virtio", 1, 32)


@pytest.fixture
def sector(tmp_path: Path, owner: Owner, profile: Profile) -> Callable[..., MachineSpec]:
    """A machine whose disk holds one of `SECTORS`."""

    def make(guest: str, name: str = "one") -> MachineSpec:
        disk = tmp_path / f"{guest}.raw"
        disk.write_bytes(bytes.fromhex(SECTORS[guest]).ljust(510, b"\0") + b"\x55\xaa" + bytes(1 << 20))
        return MachineSpec(name, owner, Image(guest, "sha256:" + "0" * 64, disk, "raw"), profile)

    return make


@pytest.fixture
def qemu_host() -> Iterator[QemuHost]:
    with qemu.connect("here", qemu.Settings(accelerator="tcg")) as host:
        yield host
        for _, machine in host.machines():
            machine.destroy()
