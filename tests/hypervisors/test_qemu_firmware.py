"""Firmware, its variables, the disk it starts from, the network it starts from; without a guest that boots."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import waiting
from lab.contracts import BootsFromNetwork, Capability, Firmware, MachineSpec, MachineState, Profile, SecureBoots
from lab.errors import HypervisorRefused, MissingTool, NotSupported
from lab.hypervisors import _qemu_arguments as arguments
from lab.hypervisors import _qemu_boot_disk as boot_disk
from lab.hypervisors import _qemu_firmware as firmware
from lab.hypervisors import _qemu_variables as variables
from lab.hypervisors import qemu
from lab.hypervisors._qemu_host import QemuHost
from lab.hypervisors._qemu_machine import QemuMachine

Sector = Callable[..., MachineSpec]
SECURE = Profile("secure", Firmware.UEFI, "q35", "virtio", "virtio", 1, 64, secure_boot=True)
OWNED = (firmware.FOLDER / "OVMF_VARS_4M.ms.fd").read_bytes()
BLANK = (firmware.FOLDER / "OVMF_VARS_4M.fd").read_bytes()


def made(host: QemuHost, spec: MachineSpec) -> QemuMachine:
    machine = host.create(spec)
    assert isinstance(machine, QemuMachine)
    return machine


@pytest.fixture
def signed(sector: Sector, tmp_path: Path) -> MachineSpec:
    """A machine with secure boot whose image has a kernel."""
    spec = sector("idle")
    kernel, initrd = tmp_path / "a kernel", tmp_path / "a,initrd"
    shutil.copyfile(firmware.SHIM, kernel)  # any signed program
    initrd.write_bytes(b"initrd" * 1000)
    image = replace(spec.image, kernel=kernel, initrd=initrd, kernel_arguments="init=/x a='b c\\' $(reboot) ; halt")
    return replace(spec, image=image, profile=SECURE)


# ---------------------------------------------------------------------------------------------------------
# Variables


def test_the_store_that_debian_fills_enforces_and_the_empty_one_does_not() -> None:
    assert variables.enforces_secure_boot(OWNED)
    assert not variables.enforces_secure_boot(BLANK)
    assert {"PK", "KEK", "db", "dbx"} <= {variable.name for variable in variables.of_store(OWNED)}


def test_a_deleted_owners_key_ends_the_enforcement() -> None:
    (key,) = [variable for variable in variables.of_store(OWNED) if variable.name == "PK"]
    name = "PK\0".encode("utf-16-le")
    at = OWNED.index(name + key.data) - 60
    deleted = OWNED[: at + 2] + b"\x3c" + OWNED[at + 3 :]  # VAR_ADDED & VAR_DELETED

    assert not variables.enforces_secure_boot(deleted)


@pytest.mark.parametrize("raw", [b"", b"\0" * 4096, OWNED[:60], b"x" * 100_000])
def test_what_is_no_variable_store_is_refused(raw: bytes) -> None:
    with pytest.raises(HypervisorRefused, match="the firmware's variables are"):
        variables.enforces_secure_boot(raw)


@given(st.integers(0, 40_000), st.binary(min_size=1, max_size=64))
def test_a_store_that_a_guest_scribbled_in_confuses_nobody(at: int, scribble: bytes) -> None:
    raw = OWNED[:at] + scribble + OWNED[at + len(scribble) :]

    with contextlib.suppress(HypervisorRefused):
        assert all(len(variable.data) <= len(raw) for variable in variables.of_store(raw))


def test_a_machines_own_store_is_asked(qemu_host: QemuHost, signed: MachineSpec) -> None:
    machine = made(qemu_host, signed)
    assert isinstance(machine, SecureBoots)
    assert machine.secure_boot_enforced()
    line = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2"]
    subprocess.run([*line, firmware.FOLDER / "OVMF_VARS_4M.fd", machine.directory.variables], check=True, timeout=60)

    assert not machine.secure_boot_enforced()


def test_a_machine_without_secure_boot_enforces_nothing(qemu_host: QemuHost, sector: Sector) -> None:
    assert not made(qemu_host, sector("idle")).secure_boot_enforced()
    spec = replace(sector("idle", "two"), profile=replace(SECURE, secure_boot=False))
    assert not made(qemu_host, spec).secure_boot_enforced()


# ---------------------------------------------------------------------------------------------------------
# The disk with the signed programs


def listed(disk: Path, name: str) -> bytes:
    return subprocess.run(["mtype", "-i", disk, f"::{name}"], check=True, capture_output=True, timeout=60).stdout


def test_the_boot_disk_holds_what_the_chain_needs(qemu_host: QemuHost, signed: MachineSpec) -> None:
    disk = made(qemu_host, signed).directory.boot

    assert listed(disk, "EFI/BOOT/BOOTX64.EFI") == firmware.SHIM.read_bytes()
    assert listed(disk, "EFI/BOOT/grubx64.efi") == firmware.LOADER.read_bytes()
    assert listed(disk, "vmlinuz") == firmware.SHIM.read_bytes()
    assert listed(disk, "initrd") == b"initrd" * 1000


def test_kernel_arguments_stay_arguments_in_the_menu(qemu_host: QemuHost, signed: MachineSpec) -> None:
    menu = listed(made(qemu_host, signed).directory.boot, "EFI/debian/grub.cfg").decode()

    assert menu.split("\n")[0] == (
        "linux /vmlinuz 'init=/x' 'a='\\''b' 'c\\'\\''' '$(reboot)' ';' 'halt' "
        "'root=/dev/vda' 'rw' 'console=tty0' 'console=ttyS0'"
    )
    assert menu.split("\n")[1:] == ["initrd /initrd", "boot", ""]


def test_secure_boot_keeps_its_variables_from_the_guest_and_the_kernel_off_the_command_line(
    signed: MachineSpec, qemu_host: QemuHost
) -> None:
    script = made(qemu_host, signed).reproduce()

    assert "q35,pflash0=firmware-code,pflash1=firmware-variables,smm=on" in script
    assert "-global driver=cfi.pflash01,property=secure,value=on" in script
    assert "OVMF_CODE_4M.secboot.fd" in script
    assert "-kernel" not in script
    assert '"drive": "boot"' in script


def test_an_image_with_a_boot_loader_of_its_own_starts_from_its_own_disk(qemu_host: QemuHost, sector: Sector) -> None:
    machine = made(qemu_host, replace(sector("idle"), profile=SECURE))

    assert not machine.directory.boot.exists()
    assert '"drive": "boot"' not in machine.reproduce()
    with pytest.raises(HypervisorRefused, match="one does not boot from a disk of the lab's with UEFI"):
        machine.boot_unsigned()


def test_shim_without_its_signature_is_shim_as_it_was_built() -> None:
    bare = boot_disk.without_signature(firmware.SHIM.read_bytes())

    original = firmware.SHIM.with_name("shimx64.efi").read_bytes()
    # The signer pads to eight bytes and writes a checksum; all code and data are the same.
    assert bare[0x200 : len(original)] == original[0x200:]
    with pytest.raises(HypervisorRefused, match="no signature that could be taken off it"):
        boot_disk.without_signature(bare)


@given(st.binary(max_size=400))
def test_what_is_no_program_has_no_signature(data: bytes) -> None:
    with pytest.raises(HypervisorRefused, match="no signature that could be taken off it"):
        boot_disk.without_signature(b"MZ" + data)


def test_a_kernel_that_nobody_signed_is_named_before_a_machine_is_made(
    qemu_host: QemuHost, signed: MachineSpec
) -> None:
    assert signed.image.kernel is not None
    signed.image.kernel.write_bytes(boot_disk.without_signature(firmware.SHIM.read_bytes()))

    with pytest.raises(NotSupported) as caught:
        qemu_host.create(signed)

    assert caught.value.what == "the kernel of image idle is not signed, so it cannot start with secure boot"
    assert list(qemu_host.machines()) == []


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        (replace(SECURE, chipset="pc"), "OVMF protects its keys by SMM, which QEMU offers on q35 and not on pc"),
        (
            replace(SECURE, firmware=Firmware.BIOS),
            "secure boot is a matter of UEFI, and the profile's firmware is bios",
        ),
    ],
)
def test_hardware_that_cannot_check_signatures_is_refused(profile: Profile, said: str) -> None:
    assert qemu.refuses(profile) == said


def test_what_secure_boot_lacks_is_told_with_the_remedy(
    qemu_host: QemuHost, signed: MachineSpec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(firmware, "SHIM", tmp_path / "shim")
    said = f"{tmp_path / 'shim'} is not on this machine (apt-get install shim-signed)"

    assert qemu_host.limits()[Capability.SECURE_BOOT] == said
    with pytest.raises(MissingTool, match="secure boot cannot be offered"):
        qemu_host.create(signed)
    assert list(qemu_host.machines()) == []


# ---------------------------------------------------------------------------------------------------------
# Network


def test_a_network_boot_offers_one_folder_and_tries_nothing_else(sector: Sector, tmp_path: Path) -> None:
    spec = sector("idle")
    files = arguments.Files(tmp_path / "root", None, "raw", None, None, None)
    served = arguments.FromNetwork(Path("/a,b"), "c,d")
    words = arguments.words(arguments.Hardware("qemu", "tcg", "max", spec, files, network_boot=served), {})

    (network,) = [words[number + 1] for number, word in enumerate(words) if word == "-netdev"]
    assert network == "user,id=net0,tftp=/a,,b,bootfile=c,,d"
    devices = [json.loads(words[number + 1]) for number, word in enumerate(words) if word == "-device"]
    assert [device["id"] for device in devices if "bootindex" in device] == ["nic0"]
    assert not any("romfile" in device for device in devices)


def test_a_boot_sector_comes_over_the_network_once(qemu_host: QemuHost, sector: Sector, tmp_path: Path) -> None:
    machine = made(qemu_host, sector("idle"))
    assert isinstance(machine, BootsFromNetwork)
    folder = tmp_path / "served"
    folder.mkdir()
    # iPXE starts a network bootstrap program at 0000:7c00, as a boot sector.
    (folder / "program").write_bytes(bytes.fromhex("fabaf803b04eeeb058eef4ebfd"))  # writes NX to COM1, stops

    machine.boot_from_network(folder, "program")

    waiting.until(lambda: b"NX" in machine.console(), what="the program from the network", timeout_s=120)
    with pytest.raises(HypervisorRefused, match="one runs; stop it first"):
        machine.boot_from_network(folder, "program")
    machine.stop(force=True)
    assert machine.state() is MachineState.STOPPED
    assert "tftp=" not in machine.reproduce()
