"""What the driver tests share: directories of their own, and guests of one sector that QEMU starts in no time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from lab import process, waiting
from lab.contracts import Firmware, Image, MachineSpec, Owner, Profile
from lab.hypervisors import qemu
from lab.hypervisors._qemu_host import QemuHost
from lab.hypervisors._qemu_machine import QemuMachine
from tests.hypervisors import xen_dom0
from tests.hypervisors.xen_dom0 import FakeDom0

SECTORS = {
    "idle": "f4ebfd",  # hlt; jmp back
    "endless": "baf803b078eeebfd",  # writes x to COM1 for ever
    "echoing": "fabaf803b03eeebafd03eca80174fbb2f8eceeebf2",  # alone (cli), writes > to COM1, then all that comes in
    "resetting": "b0fee664f4ebfd",  # asks the keyboard controller for a reset
    "panicking": "ba0505b001eef4ebfd",  # tells pvpanic, port 0x505, that it panicked
    "powering_off": "ba0406b80020eff4ebfd",  # ACPI S5 through the register where SeaBIOS puts it
    # Waits a second, in which SeaBIOS writes the last of its own, and says B. Then at each timer tick it counts on
    # from what is in sector 8, writes that there, reads it back, and puts 8 letters a to p on COM1, the digits of the
    # count; an exclamation mark when what it read is wrong.
    "ticking": (
        "31c08ed88ec08ed0bc007c8816fd7dfbb91200f4e2fdb00ae85f00b042e85a00b00ae85500c706047e0080b442e85900"
        "f466ff060080c706047e0080b443e84800c706047e0082b442e83d0066a10080663b060082751c6689c3b9080066c1c3"
        "0488d8240f0461e81000e2f1b00ae80900ebbdb021e80200ebf950bafd03eca82074f858baf803eec366c706007e1000"
        "0100c706067e000066c706087e0800000066c7060c7e00000000be007e8a16fd7db000cd1372bcc3"
    ),
}


@pytest.fixture(autouse=True)
def own_directories(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.path.name.startswith("test_qemu") or "minutes" in request.keywords:
        return  # guests that really boot use the image that everybody uses
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeDom0]:
    """A dom0 without a Xen, for all tests of a file."""
    with xen_dom0.serving(tmp_path_factory) as fake:
        yield fake


@pytest.fixture
def fake(running: FakeDom0) -> Iterator[FakeDom0]:
    """The same without what the test before left there."""
    with xen_dom0.emptied(running) as fake:
        yield fake


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


class Ticker:
    """A machine whose guest counts on its disk and on its console."""

    def __init__(self, machine: QemuMachine) -> None:
        self.machine = machine

    def counts(self) -> list[int]:
        """What it counted so far, over all its boots; fails when its disk ever forgot what it wrote."""
        console = self.machine.console()
        assert b"!" not in console
        digits = bytes.maketrans(b"abcdefghijklmnop", b"0123456789abcdef")
        return [int(line.translate(digits), 16) for line in console.split(b"\n")[:-1] if len(line) == 8]

    def boots(self) -> int:
        return self.machine.console().count(b"B\n")

    def counts_on(self) -> int:
        """Wait until it counted further; the last number."""
        before = len(self.counts())
        waiting.until(lambda: len(self.counts()) >= before + 3, what="the guest to count", timeout_s=60)
        return self.counts()[-1]

    def stumbles(self) -> list[tuple[int, int]]:
        """Where a number is missing or twice there; fails when it booted again."""
        assert self.boots() == 1
        counts = [0, *self.counts()]
        return [(before, after) for before, after in pairwise(counts) if after != before + 1]


@pytest.fixture
def ticker(qemu_host: qemu.QemuHost, sector: Callable[..., MachineSpec]) -> Ticker:
    """A running one, with a data disk."""
    machine = qemu_host.create(replace(sector("ticking"), data_disk_mib=4))
    assert isinstance(machine, QemuMachine)
    machine.start()
    made = Ticker(machine)
    made.counts_on()
    return made
