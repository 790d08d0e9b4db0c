"""A made host's command line, its console, the ports and disks that it lends: with a QEMU of a few lines beside it."""

from __future__ import annotations

import itertools
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab import process
from lab.contracts import Endpoint, Image, Realness
from lab.errors import HostError, HypervisorRefused, ImageError, LabBusy, MachineVanished, WaitedTooLong
from lab.hypervisors import _machine_directory as files
from lab.provisioning import made_frozen, made_host, made_kinds, made_qemu

TABLE = """\
Hub -1 (net0):\r
  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r
  TCP[HOST_FORWARD]  17       127.0.0.1 40123       10.0.2.15    22     0     0\r
  TCP[HOST_FORWARD]  18       127.0.0.1 40124      10.0.2.101    22     0     0\r
  TCP[ESTABLISHED]   19       127.0.0.1 40123       10.0.2.15    22     0     0\r
"""


class FakeQemu:
    """The monitor of an emulator that keeps what it is told."""

    def __init__(self) -> None:
        self.forwards = {("10.0.2.15", 22): 40000}
        self.nodes: dict[str, dict[str, Any]] = {}
        self.devices: dict[str, dict[str, Any]] = {}
        self.lets_go = True
        self.busy = 0  # how often a file cannot be closed yet

    def human(self, line: str) -> str:
        word, _, rest = line.partition(" ")
        if word == "info":
            return "".join(
                f"  TCP[HOST_FORWARD]  17  127.0.0.1 {here}  {address}  {port}  0  0\r\n"
                for (address, port), here in self.forwards.items()
            )
        if word == "hostfwd_add":
            address, _, port = rest.rpartition("-")[2].partition(":")
            self.forwards[address, int(port)] = 40000 + len(self.forwards)
        if word == "hostfwd_remove":
            here = int(rest.rpartition(":")[2])
            self.forwards = {where: known for where, known in self.forwards.items() if known != here}
        return ""

    def command(self, name: str, arguments: dict[str, Any]) -> Any:
        match name:
            case "query-named-block-nodes":
                return [{"node-name": name} for name in self.nodes]
            case "qom-list":
                return [{"name": name, "type": "child<virtio-blk-pci>"} for name in self.devices]
            case "blockdev-add":
                self.nodes[arguments["node-name"]] = arguments
            case "device_add":
                self.devices[arguments["id"]] = arguments
            case "device_del":
                if self.lets_go:
                    del self.devices[arguments["id"]]
            case "blockdev-del":
                if self.busy:
                    self.busy -= 1
                    raise HypervisorRefused("QEMU refused blockdev-del: Node x is in use")
                del self.nodes[arguments["node-name"]]
            case _:
                raise AssertionError(name)
        return None

    def until(self, probe: Callable[[], bool], *, what: str, timeout_s: float) -> None:
        if not (probe() or probe()):
            raise WaitedTooLong(f"waited {timeout_s} s for {what}")


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def qemu(monkeypatch: pytest.MonkeyPatch) -> FakeQemu:
    fake = FakeQemu()

    @contextmanager
    def monitor(self: made_qemu.Emulator) -> Iterator[FakeQemu]:
        yield fake

    monkeypatch.setattr(made_qemu.Emulator, "monitor", monitor)
    return fake


@pytest.fixture
def host(state: Path) -> made_host.MadeHost:
    """One whose emulator is this very process."""
    path = made_host.place("xen-local")
    mark = made_host.Mark("xen-local", "xen-host", "/images/x.raw", "f" * 64, "ssh-ed25519 AAAA", 1, 1, port=40000)
    files.claim(path, "xen-local", asdict(mark))
    me = {"pid": os.getpid(), "started": process.start_time(os.getpid())}
    (path / "process.json").write_text(json.dumps({**me, "keeper": me}))
    return made_host.MadeHost(path, mark)


@pytest.fixture
def dom0(host: made_host.MadeHost) -> Iterator[list[str]]:
    """Answers what is typed on the console, as the dom0 does; the list holds what it was asked."""
    asked: list[str] = []
    pipe = host.emulator.path / "console.in"
    os.mkfifo(pipe)
    opened = os.open(pipe, os.O_RDWR)

    def serve() -> None:
        with os.fdopen(os.dup(opened), "r") as lines:
            for line in lines:
                if line == "end\n":
                    return
                asked.append(line.rstrip("\n"))
                with (host.emulator.path / "console.log").open("a") as log:
                    log.write(f"(XEN) noise\ninterop-lab: done {line.split()[1]}\r\n")

    thread = threading.Thread(target=serve)
    thread.start()
    yield asked
    os.write(opened, b"end\n")
    thread.join(10)
    os.close(opened)


def image(folder: Path, *, is_host: bool = True) -> Image:
    return Image(
        name="xen-host",
        digest="sha256:1",
        disk=folder / "disk.raw",
        disk_format="raw",
        kernel=folder / "vmlinuz",
        initrd=folder / "initrd",
        hypervisor=folder / "xen,elf" if is_host else None,
        kernel_arguments="init=/x",
    )


@pytest.mark.parametrize("kind", made_kinds.KINDS.values(), ids=lambda kind: kind.recipe)
def test_the_command_line_names_no_place_of_this_machine(kind: made_kinds.Kind) -> None:
    words = made_qemu.words("/usr/bin/qemu-system-x86_64", kind)

    assert [word for word in words[1:] if "/" in word] == []


@pytest.mark.parametrize("kind", made_kinds.KINDS.values(), ids=lambda kind: kind.recipe)
def test_the_processor_hides_what_gave_wrong_data(kind: made_kinds.Kind) -> None:
    words = made_qemu.words("qemu", kind)

    assert {"-smap", "-avx", "-xsave", "-rdtscp"} <= {f"-{part}" for part in words[words.index("-cpu") + 1].split(",-")}


def test_a_comma_in_the_path_of_a_module_stays_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "a,b"

    words = made_kinds.of(image(folder)).boot_words(image(folder))

    modules = words[words.index("-initrd") + 1].replace(",,", "\0").split(",")
    assert len(modules) == 2
    assert modules[1].replace("\0", ",") == str(folder / "initrd")


def test_an_image_without_a_hypervisor_is_no_host(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="the image xen-host is no host: it has no hypervisor"):
        made_kinds.named("xen-host").boot_words(image(tmp_path, is_host=False))


def test_the_driver_gets_a_pinned_key_and_says_that_the_processor_is_emulated(host: made_host.MadeHost) -> None:
    dom0 = host.reached()

    assert (dom0.endpoint, dom0.login.host_key) == (Endpoint("127.0.0.1", 40000), "ssh-ed25519 AAAA")
    assert dom0.realness is Realness.EMULATED
    assert dom0.maker is host
    assert made_qemu.HOST_ADDRESS not in dom0.guest_addresses


def test_forwards_are_read_with_the_address_that_they_lead_to() -> None:
    class Said:
        def human(self, line: str) -> str:
            return TABLE

    assert made_host.forwards(Said()) == {("10.0.2.15", 22): 40123, ("10.0.2.101", 22): 40124}  # type: ignore[arg-type]


def test_a_port_is_forwarded_once_to_each_guest(host: made_host.MadeHost, qemu: FakeQemu) -> None:
    first, other = host.forward("10.0.2.101", 22), host.forward("10.0.2.102", 22)

    assert host.forward("10.0.2.101", 22) == first != other
    assert len(qemu.forwards) == 3


def test_a_guests_forwards_end_and_the_others_stay(host: made_host.MadeHost, qemu: FakeQemu) -> None:
    host.forward("10.0.2.101", 22)
    host.forward("10.0.2.101", 80)
    host.forward("10.0.2.102", 22)

    host.unforward("10.0.2.101")
    host.unforward("10.0.2.101")

    assert set(qemu.forwards) == {("10.0.2.15", 22), ("10.0.2.102", 22)}


@pytest.mark.parametrize("address", ["10.0.2.2", "192.0.2.1", "10.0.2.101\nquit", "10.0.2.101 -x"])
def test_only_addresses_of_the_bridge_are_forwarded_to(host: made_host.MadeHost, qemu: FakeQemu, address: str) -> None:
    with pytest.raises(HypervisorRefused, match="is not of the bridge"):
        host.forward(address, 22)


def test_a_lent_file_is_a_read_only_disk_that_the_dom0_has_seen(
    host: made_host.MadeHost, qemu: FakeQemu, dom0: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "disk.qcow2"
    file.write_bytes(b"x")

    path = host.lend(file, "qcow2")

    (name,) = qemu.nodes
    assert path == f"/dev/lab/{name}"
    assert len(name) <= 20  # bytes of a virtio disk's serial number
    assert qemu.nodes[name]["read-only"] is True
    assert qemu.devices[name]["serial"] == name
    assert [line.split()[0::2] for line in dom0] == [["lend", name]]


def test_the_same_file_is_lent_once(host: made_host.MadeHost, qemu: FakeQemu, dom0: list[str], tmp_path: Path) -> None:
    file = tmp_path / "disk.raw"
    file.write_bytes(b"x")

    assert host.lend(file, "raw") == host.lend(file, "raw")
    assert len(qemu.devices) == 1


def test_a_loan_ends_and_may_be_ended_again(
    host: made_host.MadeHost, qemu: FakeQemu, dom0: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "disk.raw"
    file.write_bytes(b"x")
    host.lend(file, "raw")

    host.take_back(file)
    host.take_back(file)

    assert (qemu.nodes, qemu.devices) == ({}, {})


def test_a_file_that_is_in_use_a_moment_longer_is_closed_after_it(
    host: made_host.MadeHost, qemu: FakeQemu, dom0: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "disk.raw"
    file.write_bytes(b"x")
    host.lend(file, "raw")
    qemu.busy = 1

    host.take_back(file)

    assert qemu.nodes == {}


def test_a_disk_that_the_dom0_keeps_is_told(
    host: made_host.MadeHost, qemu: FakeQemu, dom0: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "disk.raw"
    file.write_bytes(b"x")
    host.lend(file, "raw")
    qemu.lets_go = False

    with pytest.raises(HypervisorRefused, match="the host to let go of"):
        host.take_back(file)


def test_a_file_is_copied_into_the_host_once(
    host: made_host.MadeHost, qemu: FakeQemu, dom0: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "vmlinuz"
    file.write_bytes(b"x" * 700)

    path = host.keep(file)
    assert host.keep(file) == path

    name = Path(path).name
    assert [line.split()[0::2] + line.split()[3:] for line in dom0] == [["lend", name], ["keep", name, "700"]]
    assert qemu.devices == {}


def test_a_kvm_host_says_how_it_was_proved(host: made_host.MadeHost) -> None:
    kvm = made_host.MadeHost(host.emulator.path, replace(host.mark, recipe="kvm-host"))

    assert kvm.reached().bridge == "labbr0"
    assert kvm.reached().proof.endswith("said: Hypervisor detected: KVM")


def test_a_file_that_is_not_there_cannot_be_lent(host: made_host.MadeHost, qemu: FakeQemu, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="No such file"):
        host.lend(tmp_path / "nothing.raw", "raw")


def test_waking_tells_the_time(host: made_host.MadeHost, dom0: list[str]) -> None:
    host.wake()

    word, _, when = dom0[0].split()
    assert word == "wake"
    assert float(when) > 1.7e9


def test_a_dom0_that_was_late_is_told_the_time_again(
    host: made_host.MadeHost, dom0: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter([1000.0, 1016.0, 1017.0, 1017.5])
    monkeypatch.setattr(made_host, "time", SimpleNamespace(time=lambda: next(now)))

    host.wake()

    assert [float(line.split()[2]) for line in dom0] == [1000, 1017]


def test_a_dom0_that_is_always_late_is_not_used(
    host: made_host.MadeHost, dom0: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = itertools.count(1000.0, 16.0)
    monkeypatch.setattr(made_host, "time", SimpleNamespace(time=lambda: next(now)))

    with pytest.raises(LabBusy, match="cannot be set: its dom0 takes 16 s"):
        host.wake()

    assert len(dom0) == made_host.CLOCK_TRIES


def test_a_host_whose_emulator_is_gone_says_so(host: made_host.MadeHost) -> None:
    gone = {"pid": 2**22 + 1, "started": 1}
    (host.emulator.path / "process.json").write_text(json.dumps({**gone, "keeper": gone}))
    (host.emulator.path / "stderr.log").write_text("qemu: out of luck\n")

    with pytest.raises(MachineVanished, match="is gone: qemu: out of luck"):
        host.require_alive()
    assert not host.answers()


def test_a_destroyed_host_leaves_nothing(host: made_host.MadeHost) -> None:
    (host.emulator.path / "process.json").unlink()

    host.destroy()
    host.destroy()

    assert made_host.existing("xen-local") is None
    assert not host.emulator.path.exists()


def test_a_host_is_found_again_with_what_was_written_of_it(host: made_host.MadeHost) -> None:
    found = made_host.existing("xen-local")

    assert found is not None
    assert found.mark == host.mark


def test_a_damaged_mark_is_told_with_its_place(host: made_host.MadeHost) -> None:
    (host.emulator.path / files.MARK).write_text("{}")

    with pytest.raises(HypervisorRefused, match=r"machine\.json is damaged"):
        made_host.existing("xen-local")


def test_a_host_that_does_not_come_up_says_what_where_and_whose_fault(host: made_host.MadeHost, tmp_path: Path) -> None:
    (host.emulator.path / "console.log").write_bytes(b"(XEN) Panic on CPU 0:\r\n(XEN) no luck\r\n")

    told = made_frozen.did_not_come_up(
        image(tmp_path).name, host.emulator, WaitedTooLong("waited 300.0 s for the dom0")
    )

    assert "xen-host did not come up: waited 300.0 s for the dom0" in told.what
    assert "| (XEN) no luck" in told.what
    assert "No guest was judged" in told.hint
    kept = tmp_path / "state" / "interop-lab" / "failed-hosts" / "xen-host.log"
    assert str(kept) in told.hint
    assert kept.read_bytes().startswith(b"(XEN) Panic")
