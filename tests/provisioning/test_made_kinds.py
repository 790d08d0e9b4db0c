"""The kinds of host that the lab makes: what is booted, and when a host is believed to run guests."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import kvm_soak
from lab.contracts import Image
from lab.errors import HostError
from lab.hypervisors import _qemu_memory, _qemu_power
from lab.hypervisors._qemu_host import TCG_CPU
from lab.provisioning import hosts, made_frozen, made_kinds, made_qemu, recipes

IMAGE = Image(
    name="kvm-host",
    digest="sha256:1",
    disk=Path("/images/disk.raw"),
    disk_format="raw",
    kernel=Path("/images/vmlinuz"),
    initrd=Path("/images/initrd"),
    kernel_arguments="init=/x",
)
KVM = made_kinds.named("kvm-host")


class FakeEmulator:
    """One whose console says what the test wants."""

    said = b""

    def __init__(self, path: Path) -> None:
        self.path = path

    def start(self, line: list[str]) -> None:
        return None

    def wait_for(self, text: str, *, what: str, timeout_s: float) -> None:
        assert text.encode() in self.said

    def console(self) -> bytes:
        return self.said

    def console_end(self) -> str:
        return "\n  | " + self.said.decode()

    @contextmanager
    def monitor(self) -> Iterator[Any]:
        class Monitor:
            def command(self, name: str) -> None:
                assert name == "stop"

        yield Monitor()

    def end(self) -> None:
        return None


@pytest.fixture
def emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[FakeEmulator]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(made_qemu, "find", lambda: ("/usr/bin/qemu", "7.2.22"))
    monkeypatch.setattr(made_qemu, "Emulator", FakeEmulator)
    monkeypatch.setattr(_qemu_power, "make_disks", lambda commands: None)
    monkeypatch.setattr(_qemu_memory, "write", lambda monitor, path: path.write_bytes(b"memory"))
    monkeypatch.setattr(FakeEmulator, "said", b"")
    return FakeEmulator


def test_each_kind_has_a_recipe() -> None:
    assert set(made_kinds.KINDS) <= set(recipes.names())


def test_an_image_of_a_guest_is_no_host() -> None:
    with pytest.raises(HostError) as told:
        made_kinds.of(replace(IMAGE, name="jeos"))

    assert str(told.value) == "the image jeos is no host\n  -> hosts are made from xen-host, xen-host-hvm, kvm-host"


def test_a_kvm_host_boots_its_kernel_with_a_virtualising_processor() -> None:
    words = KVM.boot_words(IMAGE)

    assert words[:4] == ["-kernel", "/images/vmlinuz", "-initrd", "/images/initrd"]
    assert words[5] == "console=ttyS0 root=/dev/vda rw init=/x"
    assert f"{TCG_CPU},+svm,+npt" == KVM.cpu


def test_an_image_without_a_kernel_is_no_kvm_host() -> None:
    with pytest.raises(HostError, match="the image kvm-host is no host: it has no kernel and initial RAM disk"):
        KVM.boot_words(replace(IMAGE, kernel=None))


def test_a_host_in_which_a_guest_ran_is_frozen(emulator: type[FakeEmulator]) -> None:
    emulator.said = f"{KVM.proof}\r\n{KVM.ready}\r\n".encode()

    made_frozen.freeze(IMAGE, "ab" * 32, lambda line: None)

    assert made_frozen.exists("ab" * 32)


def test_a_host_in_which_no_guest_ran_is_not_frozen(emulator: type[FakeEmulator]) -> None:
    emulator.said = f"interop-lab: KVM runs no guest here\r\n{KVM.ready}\r\n".encode()

    with pytest.raises(HostError, match="kvm-host did not come up: it is up, but the guest that was to prove its"):
        made_frozen.freeze(IMAGE, "ab" * 32, lambda line: None)

    assert not made_frozen.every()


def test_a_soak_sees_a_wrong_hash_a_lost_one_and_another_hypervisor() -> None:
    right, wanted = f"{kvm_soak.expected()}  -\n", 3 * kvm_soak.TIMES
    good = f"{kvm_soak.DETECTED}\n" + right * wanted

    short = f"{wanted - 1} of {wanted} hashes are right"

    assert kvm_soak.judge(good) == (wanted, "")
    assert kvm_soak.judge(good.replace(right, "0" * 64 + "  -\n", 1))[1] == f"{short}, {wanted} came"
    assert kvm_soak.judge(good.removesuffix(right))[1] == f"{short}, {wanted - 1} came"
    assert "not 'Hypervisor detected: KVM'" in kvm_soak.judge(good.replace("KVM", "Xen PV"))[1]


def test_a_soak_counts_a_round_that_is_ended_from_outside_and_begins_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(host: object) -> object:
        raise SystemExit(1)

    monkeypatch.setattr(kvm_soak, "RESULTS", tmp_path / "soak.jsonl")
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    monkeypatch.setattr(hosts, "connect", ended)

    assert kvm_soak.main(["--times", "20"]) == 1
    assert [entry["wrong"] for entry in kvm_soak.done()] == [kvm_soak.ENDED]


def test_both_kinds_of_xen_host_differ_in_their_recipe_alone() -> None:
    plain, full = made_kinds.named("xen-host"), made_kinds.named("xen-host-hvm")

    assert replace(plain, recipe="xen-host-hvm") == full


def test_only_a_driver_that_waits_for_ssh_itself_is_spared_the_knock() -> None:
    assert {recipe for recipe, kind in made_kinds.KINDS.items() if kind.knock} == {"kvm-host"}
