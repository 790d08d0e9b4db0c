"""The parts of the User-Mode Linux driver that need no guest: names, files, messages."""

from __future__ import annotations

import json
import os
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lab.contracts import (
    CAPABILITY_PROTOCOLS,
    Capability,
    Firmware,
    Image,
    MachineSpec,
    MachineState,
    Owner,
    Profile,
    Realness,
)
from lab.errors import CommandFailed, HostError, HypervisorRefused, ImageError, MissingTool
from lab.hypervisors import _uml_arguments as arguments
from lab.hypervisors import _uml_console as console
from lab.hypervisors import _uml_cow as cow
from lab.hypervisors import _uml_host, uml
from lab.hypervisors import _uml_mconsole as mconsole
from lab.hypervisors import _uml_xstate as xstate
from lab.hypervisors._uml_host import UmlHost
from lab.hypervisors._uml_machine import UmlMachine

HARDWARE = Profile("uml", Firmware.NONE, "none", "ubd", "vector", 1, 256)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UmlHost]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with uml.connect("here", uml.Settings()) as connected:
        yield connected


@pytest.fixture
def spec(tmp_path: Path) -> MachineSpec:
    disk, seed = tmp_path / "disk.raw", tmp_path / "seed.img"
    disk.write_bytes(b"disk".ljust(1 << 20, b"\0"))
    seed.write_bytes(b"secret")
    image = Image("tiny", "sha256:" + "a" * 64, disk, "raw", kernel_arguments="init=/sbin/init quiet")
    return MachineSpec("m1", Owner("run", "a/b/c", 1, 2), image, HARDWARE, seed, 16)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"firmware": Firmware.UEFI}, "User-Mode Linux has no firmware and cannot boot through UEFI"),
        ({"disk": "virtio"}, 'User-Mode Linux has "ubd" disks, not "virtio"'),
        ({"nic": "e1000e"}, 'User-Mode Linux has "vector" network cards, not "e1000e"'),
        ({"vcpus": 2}, "linux.uml has one processor, not 2"),
    ],
)
def test_hardware_that_cannot_be_made_is_refused_with_the_reason(
    host: UmlHost, spec: MachineSpec, change: dict[str, object], reason: str
) -> None:
    profile = replace(HARDWARE, **change)  # type: ignore[arg-type]

    assert uml.refuses(profile) == reason
    assert uml.refuses(HARDWARE) is None
    with pytest.raises(HypervisorRefused, match=reason):
        host.create(replace(spec, profile=profile))
    assert host.machines() == []


def test_the_host_says_what_it_is_and_what_it_cannot_do(host: UmlHost) -> None:
    facts = host.facts()

    assert (facts.product, facts.realness) == ("User-Mode Linux", Realness.REAL)
    assert "kernel and initial RAM disk of an image are not used" in facts.details["kernel"]
    assert host.limits()[Capability.WARM_CLONES] == "User-Mode Linux cannot save the memory of a machine"


def test_what_it_can_do_and_what_it_says_that_it_cannot_is_everything(host: UmlHost, spec: MachineSpec) -> None:
    machine = host.create(spec)
    can = {capability for capability, protocol in CAPABILITY_PROTOCOLS.items() if isinstance(machine, protocol)}

    assert can == {
        Capability.SNAPSHOTS,
        Capability.PAUSES,
        Capability.DISK_HOTPLUG,
        Capability.NIC_HOTPLUG,
        Capability.SHARED_NETWORKS,
        Capability.SERIAL_INPUT,
        Capability.SYSRQ,
    }
    assert can | host.limits().keys() == set(Capability)
    assert not can & host.limits().keys()


def test_a_program_that_is_not_user_mode_linux_is_named(tmp_path: Path) -> None:
    other = tmp_path / "linux.uml"
    other.write_text("#!/bin/sh\necho hello\n")
    other.chmod(0o755)

    with pytest.raises(MissingTool, match=r"linux\.uml does not say a version of User-Mode Linux: 'hello'") as caught:
        _uml_host.version_of(str(other))
    assert caught.value.hint == "apt-get install user-mode-linux"


def test_a_missing_program_is_told_with_its_package() -> None:
    with pytest.raises(MissingTool) as caught, uml.connect("here", uml.Settings(program="no-linux.uml")):
        pass

    assert str(caught.value) == "no-linux.uml is not on this machine\n  -> apt-get install user-mode-linux"


def test_a_tun_device_that_cannot_be_opened_is_told_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"tun cannot be opened.*No such file") as caught:
        _uml_host.require_tun(tmp_path / "tun")

    assert "chmod 0666 /dev/net/tun" in caught.value.hint


def test_words_of_an_image_cannot_name_files_of_this_machine(host: UmlHost, spec: MachineSpec) -> None:
    hostile = (
        "ubd5=/etc/shadow con1=tty:/dev/tty1 hostfs=/ vec3:transport=raw init=/sbin/init root=/dev/vda ssl=pty quiet"
    )
    machine = host.create(replace(spec, image=replace(spec.image, kernel_arguments=hostile)))
    assert isinstance(machine, UmlMachine)

    words = arguments.argv(machine.directory.read())

    assert words[-2:] == ["init=/sbin/init", "quiet"]
    assert not {"/etc/shadow", "hostfs", "raw,", "/dev/vda", "pty"} & {
        part for word in words for part in word.split("=")
    }


def test_disks_are_root_seed_and_data_in_this_order(host: UmlHost, spec: MachineSpec) -> None:
    machine = host.create(spec)
    assert isinstance(machine, UmlMachine)

    words = [word for word in arguments.argv(machine.directory.read()) if word.startswith("ubd")]

    assert words == ["ubd0=root.cow,/images/base.raw", "ubd1r=seed.raw", "ubd2=data.raw"]
    assert machine.directory.data.stat().st_size == 16 << 20


def test_a_machine_keeps_its_own_seed_and_nobody_else_can_read_it(host: UmlHost, spec: MachineSpec) -> None:
    machine = host.create(spec)
    assert isinstance(machine, UmlMachine)
    assert spec.seed is not None
    spec.seed.unlink()

    assert machine.directory.seed.read_bytes() == b"secret"
    assert machine.directory.seed.stat().st_mode & 0o077 == 0
    assert machine.directory.path.stat().st_mode & 0o077 == 0


def test_another_process_reads_the_same_machine(host: UmlHost, spec: MachineSpec) -> None:
    host.create(spec)

    ((owner, found),) = host.machines()

    assert (owner, found.spec) == (spec.owner, spec)
    assert found.state() is MachineState.STOPPED


def test_a_folder_without_a_whole_mark_is_no_machine(host: UmlHost, spec: MachineSpec) -> None:
    machine = host.create(spec)
    assert isinstance(machine, UmlMachine)
    (machine.directory.path / "machine.json").write_text("{")

    assert host.machines() == []


def test_an_image_in_another_format_is_converted_once(host: UmlHost, spec: MachineSpec, tmp_path: Path) -> None:
    qcow2 = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", spec.image.disk, qcow2], check=True)
    image = replace(spec.image, disk=qcow2, disk_format="qcow2")

    first = _uml_host.base_of(image)
    written = first.stat().st_mtime_ns
    host.upload(image)

    assert first.read_bytes() == spec.image.disk.read_bytes()
    assert _uml_host.base_of(image).stat().st_mtime_ns == written
    assert [path.name for path in first.parent.glob("*.draft")] == []


def test_an_image_that_cannot_be_converted_leaves_nothing(host: UmlHost, spec: MachineSpec) -> None:
    broken = replace(spec.image, disk_format="qcow2")

    with pytest.raises(CommandFailed, match="qemu-img convert"):
        host.create(replace(spec, image=broken))

    assert host.machines() == []
    with pytest.raises(ImageError, match=r"image tiny: .*not-there is not there"):
        host.upload(replace(spec.image, disk=Path("/not-there")))


def test_a_copy_on_write_file_says_what_it_stands_on(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.write_bytes(bytes(64 << 20))
    os.utime(base, (1795331872.7, 1795331872.7))

    cow.make(tmp_path / "cow", base, base_name="/images/base.raw")

    header = (tmp_path / "cow").read_bytes()[:64]
    # As linux.uml 6.1 wrote it for a base of that size and time.
    assert header[:32] == bytes.fromhex("4f4f4f4d000000036b02972000000000040000000000020000001000" + "00000000")
    assert header[32:49] == b"/images/base.raw\0"
    assert (tmp_path / "cow").stat().st_size == 67133440


def test_a_console_keeps_its_beginning_and_its_end(tmp_path: Path) -> None:
    log = console.BoundedLog(tmp_path, head_bytes=10, tail_bytes=10)
    for number in range(100):
        log.write(b"%03d." % number)

    kept = console.read(tmp_path)

    assert kept.startswith(b"000.001.00")
    assert kept.endswith(b"098.099.")
    gap = int(kept.split(b"[... ")[1].split()[0])
    told = b"\n[... %d bytes of the console are not kept ...]\n" % gap
    assert len(kept) - len(told) + gap == 400


def test_a_console_goes_on_where_the_last_boot_ended(tmp_path: Path) -> None:
    console.BoundedLog(tmp_path, head_bytes=10).write(b"first ")
    console.BoundedLog(tmp_path, head_bytes=10).write(b"second")

    assert console.read(tmp_path) == b"first second"


def test_a_management_command_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="a command of 600 bytes does not fit into 511"):
        mconsole.ask("/nowhere", "x" * 600, timeout_s=1)


def test_an_answer_in_parts_is_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket
    import threading

    monkeypatch.chdir(tmp_path)  # the path of a socket must be short

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as kernel:
        kernel.bind("mconsole")

        def answer() -> None:
            request, asking = kernel.recvfrom(1000)
            assert struct.unpack_from("<III", request) == (0xCAFEBABE, 2, 4)
            for more, text in ((1, b"MemT\0"), (0, b"otal\0")):
                kernel.sendto(struct.pack("<III", 1 - more, more, len(text)) + text, asking)

        threading.Thread(target=answer, daemon=True).start()
        said = mconsole.ask("mconsole", "proc", timeout_s=60)

    assert (said.refused, said.text) == (True, "MemTotal")


@pytest.mark.parametrize(
    ("flags", "too_large"), [("fpu sse avx avx512f pku", False), ("fpu avx amx_bf16 amx_tile", True), ("", False)]
)
def test_processors_with_amx_are_recognised(flags: str, too_large: bool) -> None:
    assert xstate.is_too_large(f"processor : 0\nflags\t\t: {flags}\nbugs :\n") is too_large


def test_without_a_compiler_a_processor_with_amx_is_told_the_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(xstate, "is_too_large", lambda _: True)

    with pytest.raises(MissingTool, match="this processor has AMX") as caught:
        xstate.library()

    assert caught.value.hint == "apt-get install tcc"


def test_what_reproduces_a_machine_is_a_script_that_a_shell_reads(host: UmlHost, spec: MachineSpec) -> None:
    script = host.create(spec).reproduce()

    subprocess.run(["sh", "-n"], input=script.encode(), check=True)
    assert f"ubd0=root.cow,{spec.image.disk}" in script
    assert "unshare --map-root-user --net" in script


def test_a_mark_is_readable_without_the_program(host: UmlHost, spec: MachineSpec) -> None:
    machine = host.create(spec)
    assert isinstance(machine, UmlMachine)

    mark = json.loads((machine.directory.path / "machine.json").read_text())

    assert mark["schema"] == 1
    assert mark["spec"]["owner"] == {"run": "run", "cell": "a/b/c", "pid": 1, "pid_started": 2}
