"""What is plugged into QEMU machines, with real QEMU and a guest of one sector that never lets go of anything."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from lab.contracts import MachineSpec, MachineState
from lab.errors import HypervisorRefused
from lab.hypervisors import _qemu_power, _qemu_unplug, qemu
from lab.hypervisors._qemu_machine import QemuMachine

Sector = Callable[..., MachineSpec]
MAC = "52:54:00:00:00:07"
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

    # Until the guest's ACPI code speaks of processors, QEMU itself does not offer to take one out.
    with pytest.raises(HypervisorRefused, match="device unplug request for not supported device type"):
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


def test_machines_of_a_run_meet_on_a_network_and_those_of_another_do_not(
    qemu_host: qemu.QemuHost, sector: Sector
) -> None:
    def group(name: str, run: str, network: str) -> str:
        spec = sector("idle", name)
        machine = qemu_host.create(replace(spec, owner=replace(spec.owner, run=run)))
        assert isinstance(machine, QemuMachine)
        machine.start()
        machine.attach_shared_nic("card", MAC, network)
        return machine.directory.read().nics[0].group

    first = group("one", "run", "lan")

    assert group("two", "run", "lan") == first
    assert group("three", "run", "wan") != first
    assert group("four", "other", "lan") != first
    assert json.dumps(first).startswith('"239.19')
