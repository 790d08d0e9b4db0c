"""The contract suite for what is done to a guest that hangs: its memory as a file, a magic key for its kernel."""

from __future__ import annotations

import mmap
import re
import secrets
import struct
from pathlib import Path

import pytest

from lab import waiting
from lab.contracts import Capability, DumpsMemory, Hypervisor, Machine, MachineState, SendsSysrq
from lab.errors import HypervisorRefused
from lab.testing.contract import Booted, capable, proves

_SEEN_S = 60.0  # for a slow guest to notice what was done to it
_CORE = 4  # System V ABI, figure 4-3: e_type of a core file
# drivers/tty/sysrq.c: what a key that has no other meaning shows; written in two ways over the years.
_HELP = re.compile(rb"(?i)sysrq ?: HELP : ")


class DebuggingContract:
    """Behaviour tests of what looks into a guest from outside."""

    # -----------------------------------------------------------------------------------------------------
    # Memory

    @proves(Capability.MEMORY_DUMP)
    def test_a_dump_holds_what_the_guest_has_in_memory(
        self, hypervisor: Hypervisor, booted: Booted, tmp_path: Path
    ) -> None:
        machine: DumpsMemory = capable(hypervisor, booted.machine, Capability.MEMORY_DUMP)
        # In a file in memory, and told in pieces, so that whole it is nowhere else.
        first, second = secrets.token_hex(12), secrets.token_hex(12)
        booted.sh(f"printf %s {first} >/run/contract-dump; printf %s {second} >>/run/contract-dump")
        boot, file = booted.boot_id(), tmp_path / "dump"

        machine.dump_memory(file)

        with file.open("rb") as dumped:
            head = dumped.read(18)
            assert head[:4] == b"\x7fELF"
            assert struct.unpack_from("<H", head, 16) == (_CORE,)
            with mmap.mmap(dumped.fileno(), 0, access=mmap.ACCESS_READ) as memory:
                assert memory.find(f"{first}{second}".encode()) >= 0, "the dump lacks what the guest has in memory"
        used = booted.machine.spec.profile.memory_mib << 20
        assert file.stat().st_size >= used // 2, "the dump is too small to be the guest's memory"
        assert booted.machine.state() is MachineState.RUNNING
        assert booted.boot_id() == boot
        assert booted.sh("cat /run/contract-dump") == first + second

    @proves(Capability.MEMORY_DUMP)
    def test_no_dump_is_made_of_a_stopped_machine_nor_over_a_file(
        self, hypervisor: Hypervisor, made: Machine, booted: Booted, tmp_path: Path
    ) -> None:
        stopped: DumpsMemory = capable(hypervisor, made, Capability.MEMORY_DUMP)
        running: DumpsMemory = capable(hypervisor, booted.machine, Capability.MEMORY_DUMP)
        (tmp_path / "taken").write_bytes(b"mine")

        with pytest.raises(HypervisorRefused):
            stopped.dump_memory(tmp_path / "dump")
        with pytest.raises(HypervisorRefused, match="taken"):
            running.dump_memory(tmp_path / "taken")

        assert (tmp_path / "taken").read_bytes() == b"mine"
        assert [path.name for path in tmp_path.iterdir()] == ["taken"]

    # -----------------------------------------------------------------------------------------------------
    # SysRq

    @proves(Capability.SYSRQ)
    def test_a_magic_key_reaches_the_kernel(self, hypervisor: Hypervisor, booted: Booted) -> None:
        machine: SendsSysrq = capable(hypervisor, booted.machine, Capability.SYSRQ)
        boot = booted.boot_id()
        before = len(_HELP.findall(booted.machine.console()))

        machine.send_sysrq("h")

        waiting.until(
            lambda: len(_HELP.findall(booted.machine.console())) > before,
            what="the kernel to tell its keys on the console",
            timeout_s=_SEEN_S,
        )
        assert booted.boot_id() == boot

    @proves(Capability.SYSRQ)
    def test_what_is_no_magic_key_is_refused(self, hypervisor: Hypervisor, made: Machine, booted: Booted) -> None:
        stopped: SendsSysrq = capable(hypervisor, made, Capability.SYSRQ)
        machine: SendsSysrq = capable(hypervisor, booted.machine, Capability.SYSRQ)

        for key in ("", "hh", " ", "-", "\n", "ü", "H"):
            with pytest.raises(HypervisorRefused):
                machine.send_sysrq(key)
        with pytest.raises(HypervisorRefused):
            stopped.send_sysrq("h")
