"""What is plugged into QEMU machines, with real QEMU and a guest of one sector that never lets go of anything."""

from __future__ import annotations

import json
import secrets
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab import waiting
from lab.contracts import MachineSpec, MachineState
from lab.errors import HypervisorRefused, NotSupported
from lab.hypervisors import _qemu_cable, _qemu_networks, _qemu_power, _qemu_unplug, qemu
from lab.hypervisors._qemu_machine import QemuMachine

Sector = Callable[..., MachineSpec]
MAC = "52:54:00:00:00:07"
PATIENCE_S = 120.0  # what is waited for comes at once on a machine that has time
CHIPSETS = pytest.mark.parametrize("chipset", ["pc", "q35"])


@pytest.fixture
def roomy(qemu_host: qemu.QemuHost, sector: Sector) -> Callable[[str], QemuMachine]:
    """A machine that runs and has room for 3 processors and 512 MiB."""

    def make(chipset: str) -> QemuMachine:
        spec = sector("ticking")
        profile = replace(spec.profile, chipset=chipset, max_vcpus=3, max_memory_mib=512)
        machine = qemu_host.create(replace(spec, profile=profile))
        assert isinstance(machine, QemuMachine)
        machine.start()
        return machine

    return make


def asked(machine: QemuMachine, command: str) -> Any:
    with _qemu_power.monitor_of(machine.directory) as monitor:
        return monitor.command(command)


@CHIPSETS
def test_what_was_plugged_in_is_there_after_a_power_cut(roomy: Callable[[str], QemuMachine], chipset: str) -> None:
    machine = roomy(chipset)
    machine.set_vcpus(3)
    machine.attach_memory("one", 128)
    machine.attach_memory("two", 256)
    before = asked(machine, "query-memory-devices")

    machine.stop(force=True)
    machine.start()

    assert machine.vcpus() == 3
    assert len(asked(machine, "query-cpus-fast")) == 3
    after = asked(machine, "query-memory-devices")
    assert [device["data"]["addr"] for device in after] == [device["data"]["addr"] for device in before]
    assert sum(device["data"]["size"] for device in after) == 384 << 20


def test_beyond_the_profile_nothing_is_plugged_in(roomy: Callable[[str], QemuMachine]) -> None:
    machine = roomy("q35")

    with pytest.raises(HypervisorRefused, match="profile plain allows 1 to 3 processors, not 4\n  -> max_vcpus"):
        machine.set_vcpus(4)
    with pytest.raises(HypervisorRefused, match="profile plain allows 1 to 3 processors, not 0"):
        machine.set_vcpus(0)
    with pytest.raises(HypervisorRefused, match="profile plain allows 512 MiB, not 544\n  -> max_memory_mib"):
        machine.attach_memory("much", 512)
    with pytest.raises(HypervisorRefused, match="a memory module has a multiple of 128 MiB, not 100"):
        machine.attach_memory("odd", 100)
    with pytest.raises(HypervisorRefused, match="cannot be the name of a memory module"):
        machine.attach_memory("../x", 128)
    with pytest.raises(HypervisorRefused, match="no memory module called 'none' is plugged in"):
        machine.detach_memory("none")
    machine.attach_memory("one", 128)
    with pytest.raises(HypervisorRefused, match="one has a memory module 'one' already"):
        machine.attach_memory("one", 128)
    assert machine.vcpus() == 1


def test_a_profile_without_room_refuses_with_the_key_that_makes_room(qemu_host: qemu.QemuHost, sector: Sector) -> None:
    machine = qemu_host.create(sector("idle"))
    assert isinstance(machine, QemuMachine)
    machine.start()

    with pytest.raises(HypervisorRefused, match="profile plain allows 1 to 1 processors, not 2\n  -> max_vcpus of the"):
        machine.set_vcpus(2)
    with pytest.raises(HypervisorRefused, match="profile plain allows 32 MiB, not 160\n  -> max_memory_mib of the"):
        machine.attach_memory("one", 128)


def test_a_guest_that_keeps_things_keeps_them(
    roomy: Callable[[str], QemuMachine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_qemu_unplug, "LIMIT_S", 0.3)
    machine = roomy("pc")
    machine.set_vcpus(2)
    machine.attach_memory("one", 128)

    with pytest.raises(NotSupported, match="goes on to use the memory of a processor that was taken out"):
        machine.set_vcpus(1)
    with pytest.raises(HypervisorRefused, match="the guest keeps memory module one: it says nothing, waited"):
        machine.detach_memory("one")

    assert machine.vcpus() == 2
    assert [module.name for module in machine.directory.read().modules] == ["one"]


def test_the_guests_own_words_about_an_ejection_are_told() -> None:
    told = [{"event": "ACPI_DEVICE_OST", "data": {"info": {"device": "d", "source": 3, "status": 0x84}}}]
    told.append({"event": "ACPI_DEVICE_OST", "data": {"info": {"device": "other", "source": 3, "status": 0x82}}})
    told.append({"event": "ACPI_DEVICE_OST", "data": {"info": {"device": "d", "source": 3, "status": 0x82}}})

    class Monitor:
        def news(self) -> list[dict[str, Any]]:
            return [told.pop(0)] if told else []

        def command(self, name: str, arguments: object) -> object:
            return [{"name": "d"}]

        def until(self, probe: Callable[[], bool], *, what: str, timeout_s: float) -> None:
            for _ in range(5):
                probe()

    with pytest.raises(HypervisorRefused, match="the guest keeps disk x: it is busy"):
        _qemu_unplug.take_out(Monitor(), "d", "disk x")  # type: ignore[arg-type]


@CHIPSETS
def test_a_snapshot_holds_what_is_plugged_in(roomy: Callable[[str], QemuMachine], chipset: str) -> None:
    machine = roomy(chipset)
    machine.set_vcpus(2)
    machine.attach_memory("one", 128)
    machine.attach_disk("kept", 4)
    machine.attach_shared_nic("card", MAC, "lan")
    machine.snapshot("full")
    held = machine.directory.equipment()
    machine.set_vcpus(3)
    machine.attach_disk("later", 4)

    machine.restore("full")

    assert machine.state() is MachineState.RUNNING
    assert machine.directory.equipment() == held
    assert not machine.directory.plugged("later").exists()
    assert len(asked(machine, "query-cpus-fast")) == 2
    with pytest.raises(HypervisorRefused, match="snapshot 'full' holds disk kept\n  -> delete the snapshot first"):
        machine.detach_disk("kept")
    machine.delete_snapshot("full")
    assert not machine.directory.read().kept


def test_a_snapshot_from_before_is_restored_without_what_came_after(roomy: Callable[[str], QemuMachine]) -> None:
    machine = roomy("q35")
    machine.snapshot("bare")
    machine.attach_disk("later", 4)
    machine.stop(force=True)

    machine.restore("bare")

    assert machine.state() is MachineState.RUNNING
    assert machine.directory.read().disks == ()
    assert machine.snapshots() == ("bare",)


def test_a_shared_card_that_was_taken_away_can_come_again(
    roomy: Callable[[str], QemuMachine], monkeypatch: pytest.MonkeyPatch
) -> None:
    def take_out(monitor: Any, device: str, what: str) -> None:
        monitor.command("device_del", {"id": device})
        monitor.command("system_reset")  # takes out what a guest was asked to let go of
        monitor.until(
            lambda: device not in str(monitor.command("qom-list", {"path": "/machine/peripheral"})),
            what=what,
            timeout_s=PATIENCE_S,
        )

    monkeypatch.setattr(_qemu_unplug, "take_out", take_out)
    machine = roomy("pc")
    lan = _qemu_networks.folder_of("run", "lan")
    machine.attach_shared_nic("card", MAC, "lan")

    machine.detach_nic("card")

    waiting.until(lambda: not lan.exists(), what="the network to end", timeout_s=PATIENCE_S)
    machine.attach_shared_nic("card", MAC, "lan")
    assert len(list(lan.iterdir())) == 1
    machine.attach_nic("another", MAC)


def frame(sender: str, target: str = "ffffffffffff") -> bytes:
    return bytes.fromhex(target) + bytes.fromhex(sender) + b"\x88\xb5" + secrets.token_bytes(60)


class Card:
    """Stands where QEMU stands: sends and receives frames over a cable."""

    def __init__(self, folder: Path, name: str) -> None:
        self.mine, theirs = socket.socketpair()
        self.mine.settimeout(PATIENCE_S)
        job = {"card": theirs.fileno(), "folder": str(folder), "name": name}
        said = subprocess.run(
            [sys.executable, "-I", "-S", str(Path(_qemu_cable.__file__))],
            input=json.dumps(job).encode(),
            capture_output=True,
            pass_fds=[theirs.fileno()],
            timeout=PATIENCE_S,
            check=True,
        )
        assert said.stdout == b"joined\n"
        theirs.close()

    def send(self, data: bytes) -> None:
        self.mine.sendall(struct.pack(">I", len(data)) + data)

    def receive(self) -> bytes:
        return self._exactly(struct.unpack(">I", self._exactly(4))[0])

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            data += self.mine.recv(count - len(data))
        return data

    def hears_nothing(self) -> bool:
        self.mine.settimeout(0.3)
        try:
            return not self.receive()
        except TimeoutError:
            return True
        finally:
            self.mine.settimeout(PATIENCE_S)


@pytest.fixture
def network(tmp_path: Path) -> Path:
    folder = tmp_path / "network"
    folder.mkdir(mode=0o700)
    return folder


def test_frames_go_to_everybody_and_to_the_one_who_is_known(network: Path) -> None:
    one, two, three = (Card(network, name) for name in ("one", "two", "three"))

    call, large = frame("020000000001"), frame("020000000001") + bytes(9000)
    one.send(call)
    assert (two.receive(), three.receive()) == (call, call)
    one.send(large)
    assert (two.receive(), three.receive()) == (large, large)
    answer = frame("020000000002", "020000000001")
    two.send(answer)
    assert one.receive() == answer

    # two has heard of one, so only one gets this; nobody hears itself.
    assert three.hears_nothing()
    assert two.hears_nothing()


def test_a_cable_ends_with_its_card_and_the_last_one_takes_the_network_away(network: Path) -> None:
    one, two = Card(network, "one"), Card(network, "two")
    one.mine.close()
    waiting.until(lambda: not (network / "one").exists(), what="the cable to end", timeout_s=PATIENCE_S)

    two.send(frame("020000000002"))
    two.mine.close()

    waiting.until(lambda: not network.exists(), what="the network to end", timeout_s=PATIENCE_S)


def test_a_neighbour_that_was_killed_does_not_stay_in_the_way(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(network)  # a whole path may be longer than the address of a socket
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dead:
        dead.bind("dead")
    one, two = Card(network, "one"), Card(network, "two")

    call = frame("020000000001")
    one.send(call)

    assert two.receive() == call
    # Whom the cable sends to first is the order of the folder.
    waiting.until(lambda: not (network / "dead").exists(), what="the dead one's name to go", timeout_s=PATIENCE_S)


def test_whoever_joins_while_the_last_one_leaves_finds_the_network(network: Path) -> None:
    one = Card(network, "one")
    with _qemu_cable.alone(network):  # as who joins does
        one.mine.close()
        waiting.until(lambda: not (network / "one").exists(), what="the cable to end", timeout_s=PATIENCE_S)
        two = Card(network, "two")
    three = Card(network, "three")

    call = frame("020000000003")
    three.send(call)

    assert two.receive() == call


def test_machines_of_a_run_meet_on_a_network_and_those_of_another_do_not(
    qemu_host: qemu.QemuHost, sector: Sector
) -> None:
    def joined(name: str, run: str, network: str) -> QemuMachine:
        spec = sector("idle", name)
        machine = qemu_host.create(replace(spec, owner=replace(spec.owner, run=run)))
        assert isinstance(machine, QemuMachine)
        machine.start()
        machine.attach_shared_nic("card", MAC, network)
        return machine

    lan = _qemu_networks.folder_of("run", "lan")
    one, _, _, _ = (
        joined(*given)
        for given in (("one", "run", "lan"), ("two", "run", "lan"), ("three", "run", "wan"), ("four", "other", "lan"))
    )

    assert len(list(lan.iterdir())) == 2
    assert lan.stat().st_mode & 0o777 == 0o700
    assert len(list(lan.parent.iterdir())) == 3
    one.stop(force=True)
    waiting.until(lambda: len(list(lan.iterdir())) == 1, what="the cable to end", timeout_s=PATIENCE_S)
    one.start()
    assert len(list(lan.iterdir())) == 2
    one.migrate_live("second", with_storage=False)
    waiting.until(lambda: len(list(lan.iterdir())) == 2, what="the old cable to end", timeout_s=PATIENCE_S)
    for _, machine in qemu_host.machines():
        machine.destroy()
    waiting.until(lambda: not list(lan.parent.iterdir()), what="all networks to end", timeout_s=PATIENCE_S)
