"""The User-Mode Linux driver with real guests, through the contract suite that every driver passes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from lab import waiting
from lab.contracts import Channel, Firmware, Hypervisor, Image, MachineSpec, MachineState, Profile
from lab.errors import HypervisorRefused, MachineVanished, WaitedTooLong
from lab.guests.channels import ssh
from lab.hypervisors import uml
from lab.hypervisors._uml_machine import UmlMachine
from lab.testing.hypervisor import HypervisorContract
from tests.hypervisors.booting import BootingFixtures

pytestmark = [pytest.mark.minutes, pytest.mark.timeout(900)]

SHOWN = {"bin", "dev", "images", "lib", "lib64", "machine", "proc", "sbin", "tmp", "usr"}
HARDWARE = Profile("plain", Firmware.NONE, "none", "ubd", "vector", 1, 192)


class UmlFixtures(BootingFixtures):
    """A plain machine."""

    hardware = HARDWARE

    @classmethod
    def connect(cls) -> AbstractContextManager[Hypervisor]:
        return uml.connect("contract", uml.Settings())


class TestUml(UmlFixtures, HypervisorContract):
    """The driver, through the contract suite."""


class TestGuest(UmlFixtures):
    """What is particular to this driver, on one machine that is revived when a test ended it."""

    @pytest.fixture(scope="class")
    @classmethod
    def shared(cls, hypervisor: Hypervisor, boot_spec: Callable[[str], MachineSpec]) -> Iterator[UmlMachine]:
        machine = hypervisor.create(boot_spec("shared"))
        assert isinstance(machine, UmlMachine)
        yield machine
        machine.destroy()

    @pytest.fixture
    def machine(self, shared: UmlMachine) -> UmlMachine:
        shared.start()
        return shared

    @pytest.fixture
    def sh(self, machine: UmlMachine, log_in: Callable[[UmlMachine], Channel]) -> Iterator[Callable[[str], str]]:
        channel = log_in(machine)
        yield lambda script: channel.run(["sh", "-c", script], timeout_s=60).out
        channel.close()

    def test_a_guest_reboots_and_is_reached_again(
        self, machine: UmlMachine, sh: Callable[[str], str], log_in: Callable[[UmlMachine], Channel]
    ) -> None:
        boot_id = "cat /proc/sys/kernel/random/boot_id"
        before, resets, endpoint = sh(boot_id), machine.resets(), machine.endpoint(22)
        machine.attach_disk("kept", 8)

        sh("(sleep 1; reboot) >/dev/null 2>&1 &")
        waiting.until(lambda: machine.resets() > resets, what="the guest to reboot", timeout_s=60)

        channel = log_in(machine)
        assert channel.run(["sh", "-c", boot_id]).out not in ("", before)
        assert channel.run(["cat", "/sys/block/ubdd/serial"]).out == "kept"
        assert (machine.resets(), machine.endpoint(22)) == (resets + 1, endpoint)
        channel.close()
        machine.detach_disk("kept")

    def test_a_shared_card_is_back_on_its_network_after_a_reset_and_after_a_power_cut(
        self,
        hypervisor: Hypervisor,
        boot_spec: Callable[[str], MachineSpec],
        machine: UmlMachine,
        sh: Callable[[str], str],
        log_in: Callable[[UmlMachine], Channel],
    ) -> None:
        other = hypervisor.create(boot_spec("neighbour"))
        assert isinstance(other, UmlMachine)
        try:
            other.start()
            there = log_in(other)
            for one, number in ((machine, 1), (other, 2)):
                one.attach_shared_nic("shared", f"52:54:00:00:00:0{number}", "between")
            assert there.run(["sh", "-c", _UP.format(number=2)]).status == 0
            networks = machine.directory.path.parent / ".networks"
            assert [sorted(path.name for path in network.iterdir()) for network in networks.iterdir()] == [
                ["neighbour", "shared"]
            ]
            resets = machine.resets()
            sh("(sleep 1; reboot) >/dev/null 2>&1 &")
            waiting.until(lambda: machine.resets() > resets, what="the guest to reboot", timeout_s=120)
            assert _pings(log_in(machine))

            machine.stop(force=True)
            machine.start()

            back = log_in(machine)
            assert _pings(back)
            back.run(["ip", "link", "set", "vec1", "down"])
            back.close()
            machine.detach_nic("shared")
        finally:
            other.destroy()
        assert not networks.exists()

    def test_a_disk_that_a_guest_holds_open_is_not_taken_away(
        self, machine: UmlMachine, sh: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("lab.hypervisors._uml_plugs._LET_GO_S", 0.5)
        machine.attach_disk("held", 8)
        sh("exec 3</dev/ubdd; sleep 600 >/dev/null 2>&1 & echo $! >/run/holder")

        with pytest.raises(HypervisorRefused, match="the disk held of shared cannot be detached"):
            machine.detach_disk("held")

        sh("kill $(cat /run/holder)")
        waiting.until(lambda: _detached(machine, "held"), what="the disk to be let go", timeout_s=120)

    def test_a_guest_sees_nothing_of_this_machine_through_hostfs(self, sh: Callable[[str], str]) -> None:
        sh("mkdir -p /run/host; mount -t hostfs none /run/host -o /")

        assert set(sh("ls /run/host").split()) <= SHOWN
        assert "machine.json" not in sh("ls -a /run/host/machine")
        assert sh("cat /run/host/proc/1/root/etc/shadow /run/host/../etc/hostname") == ""
        assert sh("cat /run/host/proc/1/fd/*/machine.json /run/host/proc/*/cwd/machine.json") == ""
        assert sh("echo x >/run/host/images/base.raw || echo refused") == "refused"
        assert sh("echo x >/run/host/usr/bin/lab-was-here || echo refused") == "refused"
        sh("umount /run/host")

    def test_a_second_port_of_the_guest_is_reached_on_demand(
        self, machine: UmlMachine, sh: Callable[[str], str]
    ) -> None:
        first, second = machine.endpoint(22), machine.endpoint(8080)

        assert first != second
        assert machine.endpoint(8080) == second
        assert ssh.probe(second, timeout_s=60) is ssh.Answer.CLOSED

    def test_the_guest_ignores_the_button(self, machine: UmlMachine, sh: Callable[[str], str]) -> None:
        sh("cp /usr/lib/interop-lab/ctrl-alt-del /run/kept; mount -o bind /bin/true /usr/lib/interop-lab/ctrl-alt-del")

        with pytest.raises(WaitedTooLong, match="shared to shut down after Ctrl-Alt-Del"):
            machine.stop(timeout_s=2)

        assert machine.state() is MachineState.RUNNING
        sh("umount /usr/lib/interop-lab/ctrl-alt-del")

    def test_an_endless_console_is_bounded_and_keeps_its_end(
        self, machine: UmlMachine, sh: Callable[[str], str]
    ) -> None:
        sh("yes 0123456789abcdef0123456789abcdef | head -c 6000000 >/dev/console; echo the-end >/dev/console")
        waiting.until(lambda: b"the-end" in machine.console(), what="the end of the flood", timeout_s=120)

        log = machine.console()
        assert len(log) < 4 << 20
        assert b"Linux version" in log
        assert b"bytes of the console are not kept" in log

    def test_a_panic_is_told_from_a_shutdown(self, machine: UmlMachine, sh: Callable[[str], str]) -> None:
        endpoint = machine.endpoint(22)
        sh("(sleep 1; echo c >/proc/sysrq-trigger) >/dev/null 2>&1 &")

        waiting.until(lambda: machine.state() is MachineState.CRASHED, what="the guest to panic", timeout_s=60)

        assert b"Kernel panic" in machine.console()
        assert machine.endpoint(22) == endpoint
        assert ssh.probe(endpoint, timeout_s=60) is ssh.Answer.UNREACHABLE

    def test_a_machine_that_is_killed_from_outside_has_vanished(
        self, hypervisor: Hypervisor, machine: UmlMachine, sh: Callable[[str], str]
    ) -> None:
        sh("echo last-words >/dev/console; sleep 1")
        holder = machine.directory.holder()
        assert holder is not None
        os.kill(holder.pid, signal.SIGKILL)

        waiting.until(lambda: machine.state() is MachineState.GONE, what="the machine to be gone", timeout_s=60)

        for attempt in (machine.stop, machine.pause, lambda: machine.endpoint(22)):
            with pytest.raises(MachineVanished, match=r"shared ended unasked: its processes were killed.*last-words"):
                attempt()
        assert "shared" in [other.name for _, other in hypervisor.machines()]
        assert _processes_of("shared") == []
        machine.stop(force=True)
        assert machine.state() is MachineState.STOPPED

    def test_a_kernel_that_finds_no_root_has_crashed_and_says_why(
        self, hypervisor: Hypervisor, boot_spec: Callable[[str], MachineSpec], tmp_path: Path
    ) -> None:
        empty = tmp_path / "empty.raw"
        empty.write_bytes(bytes(1 << 20))
        spec = boot_spec("rootless")
        machine = hypervisor.create(replace(spec, image=Image("empty", "sha256:" + "e" * 64, empty, "raw")))

        machine.start()
        waiting.until(lambda: machine.state() is MachineState.CRASHED, what="the kernel to give up", timeout_s=60)

        assert b"Unable to mount root fs" in machine.console()
        machine.destroy()

    def test_what_linux_uml_says_is_told_when_it_does_not_start(
        self, hypervisor: Hypervisor, boot_spec: Callable[[str], MachineSpec]
    ) -> None:
        spec = boot_spec("tiny")
        machine = hypervisor.create(replace(spec, profile=replace(spec.profile, memory_mib=8)))

        with pytest.raises(HypervisorRefused, match=r"linux\.uml ended while starting tiny: .*Too few physical memory"):
            machine.start()

        machine.destroy()
        assert _processes_of("tiny") == []

    def test_destroying_a_running_machine_leaves_no_process_and_no_file(
        self, hypervisor: Hypervisor, boot_spec: Callable[[str], MachineSpec]
    ) -> None:
        machine = hypervisor.create(boot_spec("doomed"))
        assert isinstance(machine, UmlMachine)
        machine.start()
        path, before = machine.directory.path, _memory_files()
        assert _processes_of("doomed")

        # As another process would, which knows the host's name only.
        found = {other.name: other for _, other in hypervisor.machines()}["doomed"]
        found.destroy()

        assert machine.state() is MachineState.GONE
        assert not path.exists()
        assert _processes_of("doomed") == []
        assert _memory_files() <= before
        with pytest.raises(HypervisorRefused, match="'doomed' is gone: it was destroyed"):
            machine.pause()


_UP = "ip address add 10.9.9.{number}/24 dev vec1 && ip link set vec1 up"


def _pings(channel: Channel) -> bool:
    return channel.run(["sh", "-c", f"{_UP.format(number=1)} && ping -c 2 -W 3 10.9.9.2"], timeout_s=60).status == 0


def _detached(machine: UmlMachine, name: str) -> bool:
    try:
        machine.detach_disk(name)
    except HypervisorRefused:
        return False
    return True


def _memory_files() -> set[Path]:
    """What linux.uml puts its memory into, as it calls that, outside of any sandbox."""
    return set(Path("/dev/shm").glob("vm_file-*"))


def _processes_of(name: str) -> list[str]:
    """Command lines of processes with the network card's address of that machine."""
    from lab.hypervisors._uml_arguments import mac_of

    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if mac_of(name).encode() in line:
            found.append(line.decode())
    return found
