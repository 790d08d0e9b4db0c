"""QEMU's command line: every profile, and values that try to break out of their option."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.contracts import Firmware, Image, MachineSpec, Owner, Profile
from lab.hypervisors import _qemu_arguments as arguments
from lab.hypervisors import _qemu_host, qemu
from lab.hypervisors._qemu_arguments import Files, Hardware
from lab.hypervisors._qemu_plugged import NETWORK_CARDS, Plugged

PLAIN = Profile("plain", Firmware.BIOS, "pc", "virtio", "virtio", 2, 512)
# Anything but NUL, which no argument of a program can hold.
nasty = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40)


def hardware(
    profile: Profile = PLAIN, *, path: str = "/x/disk", name: str = "one", arguments_: str = "quiet"
) -> Hardware:
    image = Image(
        "i", "sha256:0", Path(path), "raw", Path(path + ".kernel"), Path(path + ".initrd"), kernel_arguments=arguments_
    )
    uefi = profile.firmware is Firmware.UEFI
    files = Files(
        root=Path(path),
        seed=Path(path + ".seed"),
        seed_format="qcow2" if profile.disk == "sata" else "raw",
        data=Path(path + ".data"),
        firmware_code=Path("/fw/code") if uefi else None,
        firmware_variables=Path("/fw/vars") if uefi else None,
    )
    spec = MachineSpec(name, Owner("r", "a/b/c", 1, 2), image, profile, Path("/seed"), 64)
    return Hardware("qemu", "tcg", "max", spec, files)


def values(words: list[str], option: str) -> list[str]:
    return [words[index + 1] for index, word in enumerate(words) if word == option]


@given(nasty, nasty)
def test_no_path_and_no_name_breaks_out_of_its_option(path: str, name: str) -> None:
    plain = arguments.words(hardware(), {22: 0})
    words = arguments.words(hardware(path=f"/x/{path}", name=name), {22: 0})

    assert len(words) == len(plain)
    disks = [json.loads(value) for value in values(words, "-blockdev")]
    assert [disk["file"]["filename"] for disk in disks] == [
        str(Path(f"/x/{path}{end}")) for end in ("", ".seed", ".data")
    ]
    assert [set(disk) for disk in disks] == [set(json.loads(value)) for value in values(plain, "-blockdev")]
    (named,) = values(words, "-name")
    assert named.replace(",,", "").count(",") == 0
    assert named.removeprefix("guest=").replace(",,", ",") == name


@given(nasty)
def test_kernel_arguments_stay_one_word_and_end_with_ours(text: str) -> None:
    (append,) = values(arguments.words(hardware(arguments_=text), {22: 0}), "-append")

    assert append.endswith("root=/dev/vda rw console=tty0 console=ttyS0")
    assert append.startswith(text.strip()[:1])


@pytest.mark.parametrize("chipset", arguments.CHIPSETS)
@pytest.mark.parametrize("firmware", arguments.FIRMWARES)
@pytest.mark.parametrize("disk", arguments.ROOT_DEVICES)
@pytest.mark.parametrize("nic", NETWORK_CARDS)
def test_every_profile_has_its_devices_in_order(chipset: str, firmware: Firmware, disk: str, nic: str) -> None:
    profile = Profile("p", firmware, chipset, disk, nic, 1, 256)
    words = arguments.words(hardware(profile), {22: 0})
    devices = [json.loads(value) for value in values(words, "-device")]

    drives = [device["drive"] for device in devices if "drive" in device]
    assert drives == ["root", "seed", "data"]
    assert [device["driver"] for device in devices if device.get("netdev")] == [NETWORK_CARDS[nic]]
    assert any(f"root={arguments.ROOT_DEVICES[disk]} " in value for value in values(words, "-append"))
    assert ("pflash0=" in values(words, "-machine")[0]) == (firmware is Firmware.UEFI)
    assert (sum(device["driver"] == "pcie-root-port" for device in devices) > 0) == (chipset == "q35")
    assert qemu.refuses(profile) is None


def test_a_seed_is_read_only_wherever_qemu_allows_it() -> None:
    for disk in arguments.ROOT_DEVICES:
        profile = Profile("p", Firmware.BIOS, "pc", disk, "virtio", 1, 256)
        words = arguments.words(hardware(profile), {})
        seed = next(found for found in map(json.loads, values(words, "-blockdev")) if found["node-name"] == "seed")
        assert seed["read-only"] is (disk != "sata")


def test_ports_are_forwarded_from_this_machine_alone() -> None:
    (network,) = values(arguments.words(hardware(), {22: 0, 80: 8080}), "-netdev")

    assert network == "user,id=net0,hostfwd=tcp:127.0.0.1:0-10.0.2.15:22,hostfwd=tcp:127.0.0.1:8080-10.0.2.15:80"


def test_qemu_runs_without_privileges_of_its_own() -> None:
    words = arguments.words(hardware(), {})

    assert "-nodefaults" in words
    assert "-no-user-config" in words
    assert values(words, "-sandbox") == ["on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("disk", "ubd", "QEMU machines of the lab have no disk 'ubd' (they have virtio, sata, nvme, pvscsi)"),
        ("nic", "vector", "QEMU machines of the lab have no nic 'vector' (they have virtio, e1000e, vmxnet3)"),
        ("chipset", "microvm", "QEMU machines of the lab have no chipset 'microvm' (they have pc, q35)"),
        ("firmware", Firmware.NONE, "QEMU machines of the lab have no firmware 'none' (they have bios, uefi)"),
    ],
)
def test_hardware_that_is_not_offered_is_named(key: str, value: str, said: str) -> None:
    fields = {"name": "p", "firmware": Firmware.BIOS, "chipset": "pc", "disk": "virtio", "nic": "virtio"}

    assert qemu.refuses(Profile(**{**fields, key: value}, vcpus=1, memory_mib=64)) == said


def test_plugged_devices_are_part_of_the_next_start() -> None:
    from dataclasses import replace

    machine = replace(
        hardware(Profile("p", Firmware.BIOS, "q35", "virtio", "e1000e", 1, 64)),
        disks=((Plugged("extra", "port0"), Path("/x/a,b")),),
        nics=(Plugged("card", "port1", "52:54:00:00:00:01", 3),),
    )
    words = arguments.words(machine, {})

    assert '"filename": "/x/a,b"' in values(words, "-blockdev")[-1]
    assert values(words, "-netdev")[-1] == "user,id=plugged-card,net=10.0.3.0/24"
    devices = [json.loads(value) for value in values(words, "-device")]
    assert [(device["driver"], device["bus"]) for device in devices[-2:]] == [
        ("virtio-blk-pci", "port0"),
        ("e1000e", "port1"),
    ]


def test_the_processor_model_hides_what_gave_wrong_data() -> None:
    hidden = _qemu_host.TCG_CPU.split(",")[1:]

    assert {"-avx", "-avx2", "-xsave", "-fma"} <= set(hidden)
    assert all(flag.startswith("-") for flag in hidden)
