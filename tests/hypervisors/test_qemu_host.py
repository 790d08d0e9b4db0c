"""Finding QEMU, its version and its accelerator; with programs that only pretend to be QEMU."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from lab import process
from lab.contracts import Firmware, Image, MachineSpec, Owner, Profile, Realness
from lab.errors import HostError, HypervisorRefused, ImageError, LabBusy, LabDiskFull, MachineVanished, MissingTool
from lab.hypervisors import _qemu_accelerator as accelerator
from lab.hypervisors import _qemu_host, _qemu_process, qemu
from lab.hypervisors._qemu_host import QemuHost

PROFILE = Profile("plain", Firmware.BIOS, "pc", "virtio", "virtio", 1, 32)


def program(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def version_script(version: str, otherwise: str = "exit 1") -> str:
    return f'if [ "$1" = --version ]; then echo "QEMU emulator version {version}"; exit 0; fi\n{otherwise}'


def test_without_qemu_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with (
        pytest.raises(MissingTool, match="qemu-system-x86_64 is not on this machine") as caught,
        qemu.connect("here", qemu.Settings()),
    ):
        pass
    assert caught.value.hint == "apt-get install qemu-system-x86"


def test_without_qemu_img_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program(tmp_path, "qemu-system-x86_64", version_script("7.2.0"))
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(MissingTool, match="qemu-img") as caught, qemu.connect("here", qemu.Settings()):
        pass
    assert caught.value.hint == "apt-get install qemu-utils"


@pytest.mark.parametrize("version", ["5.2.0 (Debian 1:5.2+dfsg-11)", "6.1.50", "2.12.0"])
def test_a_qemu_that_is_too_old_is_named_with_what_is_needed(tmp_path: Path, version: str) -> None:
    binary = program(tmp_path, "qemu-old", version_script(version))

    with (
        pytest.raises(MissingTool, match=rf"qemu-old is QEMU {version.split()[0]}; the lab needs 6\.2 or later"),
        qemu.connect("here", qemu.Settings(binary=str(binary))),
    ):
        pass


def test_a_program_that_is_not_qemu_is_named(tmp_path: Path) -> None:
    binary = program(tmp_path, "not-qemu", "echo GNU coreutils 9.1")

    with pytest.raises(MissingTool, match=r"does not say a version of QEMU: 'GNU coreutils 9\.1'"):
        _qemu_host.version_of(str(binary))


@pytest.mark.parametrize(
    ("said", "version", "build"),
    [
        ("7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)", "7.2.22", "Debian 1:7.2+dfsg-7+deb12u18+b3"),
        ("10.0.2 (qemu-10.0.2-1.fc42)", "10.0.2", "qemu-10.0.2-1.fc42"),
        ("6.2.0", "6.2.0", "6.2.0"),
        ("8.0", "8.0", "8.0"),
    ],
)
def test_versions_are_read(tmp_path: Path, said: str, version: str, build: str) -> None:
    assert _qemu_host.version_of(str(program(tmp_path, "qemu", version_script(said)))) == (version, build)


@pytest.mark.parametrize("setting", [{"binari": "x"}, {"accelerator": "hvf"}, {"ssh_port": 70000}, {"ssh_port": "22"}])
def test_settings_are_checked(setting: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        qemu.Settings.model_validate(setting)


def test_facts_name_the_accelerator_the_processor_and_why(qemu_host: QemuHost) -> None:
    facts = qemu_host.facts()

    assert (facts.product, facts.realness, facts.accelerator) == ("QEMU", Realness.REAL, "tcg")
    assert facts.cpu_model == _qemu_host.TCG_CPU
    assert facts.details["accelerator"] == "software emulation, as the inventory says"


def test_a_missing_image_is_named_before_anything_is_made(qemu_host: QemuHost, tmp_path: Path) -> None:
    image = Image("gone", "sha256:0", tmp_path / "gone.raw", "raw")
    spec = MachineSpec("one", Owner("r", "a/b/c", 1, 2), image, PROFILE)

    with pytest.raises(ImageError, match=r"image gone: .*/gone\.raw is not there"):
        qemu_host.create(spec)
    assert list(qemu_host.machines()) == []


# ---------------------------------------------------------------------------------------------------------
# A QEMU that fails


@pytest.mark.parametrize(
    ("script", "error", "said"),
    [
        ("echo 'qemu: No space left on device' >&2; exit 1", LabDiskFull, "No space left on device"),
        (
            "echo 'something else' >&2; exit 3",
            HypervisorRefused,
            r"QEMU ended while starting: something else .*status 3",
        ),
        ("kill -9 $$", MachineVanished, r"QEMU ended while starting: it said nothing \(signal 9\)"),
        (
            "echo 'qemu: Failed to get \"write\" lock' >&2; exit 1",
            LabBusy,
            "somebody else has an image open: .*write",
        ),
        ("yes noise | head -c 3000000 >&2; exit 1", HypervisorRefused, "noise"),
    ],
)
def test_what_a_failing_qemu_says_becomes_the_error(
    tmp_path: Path, script: str, error: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_qemu_process, "_LOCKED_S", 0.0)
    binary = program(tmp_path, "qemu", version_script("7.2.0", script))
    disk = tmp_path / "disk.raw"
    disk.write_bytes(bytes(1 << 20))
    spec = MachineSpec("one", Owner("r", "a/b/c", 1, 2), Image("i", "sha256:0", disk, "raw"), PROFILE)
    with qemu.connect("here", qemu.Settings(binary=str(binary), accelerator="tcg")) as host:
        machine = host.create(spec)
        with pytest.raises(error, match=said) as caught:
            machine.start()
        machine.destroy()
    assert len(str(caught.value)) < 3000


def test_a_qemu_that_never_answers_is_ended_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_qemu_process, "START_LIMIT_S", 1.0)
    binary = program(tmp_path, "qemu", version_script("7.2.0", "exec sleep 1000"))
    disk = tmp_path / "disk.raw"
    disk.write_bytes(bytes(1 << 20))
    spec = MachineSpec("one", Owner("r", "a/b/c", 1, 2), Image("i", "sha256:0", disk, "raw"), PROFILE)
    with qemu.connect("here", qemu.Settings(binary=str(binary), accelerator="tcg")) as host:
        machine = host.create(spec)
        with pytest.raises(Exception, match="QEMU's monitor to answer"):
            machine.start()
        started = json.loads((next((tmp_path / "state").rglob("process.json"))).read_text())
        # Who has ended stays in the list of processes until its keeper has asked how.
        assert process.start_time(started["pid"]) is None


# ---------------------------------------------------------------------------------------------------------
# The accelerator


def test_the_proof_runs_under_software_emulation() -> None:
    proof = accelerator.prove("qemu-system-x86_64", "tcg", limit_s=120)

    assert proof == accelerator.Proof(True, "TCG ran a test guest with the right result")


def test_the_proof_is_the_assembled_source(tmp_path: Path) -> None:
    source = Path(accelerator.__file__).with_name("_qemu_proof.s")
    made, linked = tmp_path / "proof.o", tmp_path / "proof.bin"
    subprocess.run(["as", "--64", source, "-o", made], check=True, timeout=60)
    line = ["ld", "-Ttext", "0x7c00", "--oformat", "binary", "-e", "_start", made, "-o", linked]
    subprocess.run(line, check=True, timeout=60)

    assert linked.read_bytes() == accelerator.boot_sector()


@pytest.mark.parametrize(
    ("script", "limit_s", "sentence"),
    [
        ("exec sleep 1000", 0.4, "KVM answers, but a test guest did not finish within 0 s under it"),
        ("printf wrongone; exit 33", 60, "KVM did not run a test guest (exit status 33): 'wrongone'"),
        ("printf eiaaaaab; exit 0", 60, "KVM did not run a test guest (exit status 0): 'eiaaaaab'"),
        (
            "echo 'Could not access KVM' >&2; exit 1",
            60,
            "KVM did not run a test guest (exit status 1): Could not access KVM",
        ),
    ],
)
def test_a_proof_that_fails_says_how(tmp_path: Path, script: str, limit_s: float, sentence: str) -> None:
    binary = program(tmp_path, "qemu", script)

    assert accelerator.prove(str(binary), "kvm", limit_s=limit_s) == accelerator.Proof(False, sentence)


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "kvm"
    path.touch()
    monkeypatch.setattr(accelerator, "_DEVICE", path)
    monkeypatch.setattr(accelerator, "LIMIT_S", 60.0)
    return path


@pytest.mark.parametrize(("script", "chosen"), [("printf eiaaaaab; exit 33", "kvm"), ("exit 1", "tcg")])
def test_kvm_is_taken_only_where_it_was_proved_and_asked_once(
    tmp_path: Path, device: Path, script: str, chosen: str
) -> None:
    counted = tmp_path / "runs"
    binary = str(program(tmp_path, "qemu", f"echo run >>{counted}\n{script}"))

    choices = [accelerator.choose("auto", binary, "7.2").name for _ in range(3)]

    assert choices == [chosen] * 3
    assert counted.read_text() == "run\n"
    accelerator.choose("auto", binary, "7.3")
    assert counted.read_text() == "run\nrun\n"


def test_the_answer_is_forgotten_when_this_machine_boots_again(
    tmp_path: Path, device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot = tmp_path / "boot_id"
    boot.write_text("one\n")
    monkeypatch.setattr(accelerator, "_BOOT_ID", boot)
    binary = program(tmp_path, "qemu", "exit 1")
    assert not accelerator.kvm_proof(str(binary), "7.2").works
    program(tmp_path, "qemu", "printf eiaaaaab; exit 33")
    assert not accelerator.kvm_proof(str(binary), "7.2").works

    boot.write_text("two\n")

    assert accelerator.kvm_proof(str(binary), "7.2").works


def test_a_machine_without_kvm_is_not_asked(device: Path) -> None:
    device.unlink()

    choice = accelerator.choose("auto", "/is/not/there", "7.2")

    assert choice.name == "tcg"
    assert choice.why == f"software emulation, because {device} is not there"


def test_kvm_that_is_demanded_and_does_not_work_is_an_error(tmp_path: Path, device: Path) -> None:
    binary = program(tmp_path, "qemu", "exit 1")

    with pytest.raises(HostError, match="KVM did not run a test guest") as caught:
        accelerator.choose("kvm", str(binary), "7.2")
    assert "lab_accelerator" in caught.value.hint


def test_a_version_is_asked_once_for_each_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    asked = tmp_path / "asked"
    binary = program(tmp_path, "qemu", f"echo >>{asked}\n{version_script('7.2.22 (Debian 1:7.2)')}")

    told = [_qemu_host.known_version_of(str(binary)) for _ in range(3)]

    assert told == [("7.2.22", "Debian 1:7.2")] * 3
    assert asked.read_text() == "\n"


@pytest.mark.parametrize("damage", ["", "{", "[]", "[[1], 2]", "null"])
def test_a_program_that_changed_is_asked_anew_and_so_is_one_whose_answer_is_damaged(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    _qemu_host.known_version_of(str(program(tmp_path, "qemu", version_script("7.2.1"))))
    (tmp_path / "interop-lab/qemu-version.json").write_text(damage)

    assert _qemu_host.known_version_of(str(tmp_path / "qemu"))[0] == "7.2.1"
    (tmp_path / "qemu").unlink()
    assert _qemu_host.known_version_of(str(program(tmp_path, "qemu", version_script("10.0.1"))))[0] == "10.0.1"
