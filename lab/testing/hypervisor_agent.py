"""The contract suite for ways into a guest that need no network: the serial line and the hypervisor's agent."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import pytest

from lab import waiting
from lab.contracts import (
    Capability,
    CopiesFiles,
    FreezesFilesystems,
    Hypervisor,
    Machine,
    MachineState,
    OffersVsock,
    ReportsAddresses,
    RunsInGuest,
    TakesSerialInput,
)
from lab.errors import CommandTimedOut, GuestCommandFailed, HypervisorRefused, LabError
from lab.testing.contract import Booted, capable, proves

_SEEN_S = 60.0  # for a slow guest to notice what was done to it
_AGENT_S = 240.0  # for its agent to come up


def answering(hypervisor: Hypervisor, booted: Booted, capability: Capability) -> Any:
    """The machine with that capability of its agent, once the agent answers."""
    machine = capable(hypervisor, booted.machine, capability)
    if isinstance(machine, RunsInGuest) and Capability.GUEST_COMMANDS not in hypervisor.limits():
        waiting.until(machine.agent_answers, what="the agent in the guest", timeout_s=_AGENT_S)
    return machine


class AgentContract:
    """Behaviour tests of what reaches a guest without a network."""

    # -----------------------------------------------------------------------------------------------------
    # The serial line

    @proves(Capability.SERIAL_INPUT)
    def test_what_is_typed_on_the_console_reaches_a_program_in_the_guest(
        self, hypervisor: Hypervisor, booted: Booted
    ) -> None:
        machine: TakesSerialInput = capable(hypervisor, booted.machine, Capability.SERIAL_INPUT)
        token = secrets.token_hex(8)
        # A login prompt may read from the same line, so the program answers to one line of several.
        script = f"while read -r line; do [ $line = {token} ] && echo seen >/run/{token} && break; done </dev/console"
        booted.sh(f"({script}) >/dev/null 2>&1 & sleep 1")

        def seen() -> bool:
            machine.type_on_console(f"{token}\n".encode())
            return bool(booted.sh(f"cat /run/{token} 2>/dev/null || echo") == "seen")

        waiting.until(seen, what="the guest to read its console", timeout_s=_SEEN_S, longest_pause_s=2.0)
        assert booted.machine.state() is MachineState.RUNNING

    @proves(Capability.SERIAL_INPUT)
    def test_nothing_is_typed_on_a_stopped_machine(self, hypervisor: Hypervisor, made: Machine) -> None:
        machine: TakesSerialInput = capable(hypervisor, made, Capability.SERIAL_INPUT)

        with pytest.raises(HypervisorRefused):
            machine.type_on_console(b"x")

    # -----------------------------------------------------------------------------------------------------
    # Programs

    @proves(Capability.GUEST_COMMANDS)
    def test_the_agent_runs_a_program_in_this_guest(self, hypervisor: Hypervisor, booted: Booted) -> None:
        machine: RunsInGuest = answering(hypervisor, booted, Capability.GUEST_COMMANDS)
        token, nasty = secrets.token_hex(8), "a 'b' \"c\" $d `e` \\ *\nf"
        booted.sh(f"echo {token} >/run/contract-agent")

        result = machine.agent_run(["cat", "/run/contract-agent", "-"], stdin=b"\x00in\xff\n")
        assert (result.status, result.stdout) == (0, token.encode() + b"\n\x00in\xff\n")
        result = machine.agent_run(["sh", "-c", 'printf %s "$1"; echo oops >&2; exit 7', "sh", nasty])

        assert (result.status, result.out, result.err) == (7, nasty, "oops")
        assert machine.agent_run(["is-not-there-" + token]).status == 127

    @proves(Capability.GUEST_COMMANDS)
    def test_a_program_that_does_not_end_is_ended(self, hypervisor: Hypervisor, booted: Booted) -> None:
        machine: RunsInGuest = answering(hypervisor, booted, Capability.GUEST_COMMANDS)
        number = f"{secrets.randbelow(1 << 24) + 1000}"

        with pytest.raises(CommandTimedOut, match="sleep"):
            machine.agent_run(["sleep", number], timeout_s=2.0)

        listed = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '"
        waiting.until(
            lambda: f"sleep {number}" not in booted.sh(f"{listed} || true"), what="the end of sleep", timeout_s=_SEEN_S
        )
        assert machine.agent_answers()

    @proves(Capability.GUEST_COMMANDS)
    def test_endless_output_is_cut(self, hypervisor: Hypervisor, booted: Booted) -> None:
        machine: RunsInGuest = answering(hypervisor, booted, Capability.GUEST_COMMANDS)

        result = machine.agent_run(["sh", "-c", "dd if=/dev/zero bs=1048576 count=5 2>/dev/null"], timeout_s=120)

        assert result.status == 0
        assert result.truncated
        assert 0 < len(result.stdout) < 5 << 20

    # -----------------------------------------------------------------------------------------------------
    # Files

    @proves(Capability.GUEST_FILES)
    def test_files_go_in_and_out_through_the_agent(self, hypervisor: Hypervisor, booted: Booted) -> None:
        machine: CopiesFiles = answering(hypervisor, booted, Capability.GUEST_FILES)
        content = secrets.token_bytes(300_000)
        there, back = PurePosixPath("/run/contract in"), PurePosixPath("/run/contract-out")

        machine.agent_write(there, content)
        booted.sh(f"cat '{there}' '{there}' >{back}; : >/run/contract-empty")

        assert booted.sh(f"wc -c <'{there}'").strip() == "300000"
        assert machine.agent_read(back) == content * 2
        assert machine.agent_read(PurePosixPath("/run/contract-empty")) == b""
        machine.agent_write(there, b"")
        assert booted.sh(f"wc -c <'{there}'").strip() == "0"

    @proves(Capability.GUEST_FILES)
    def test_a_file_that_cannot_be_copied_is_named(self, hypervisor: Hypervisor, booted: Booted) -> None:
        machine: CopiesFiles = answering(hypervisor, booted, Capability.GUEST_FILES)
        booted.sh("dd if=/dev/zero of=/run/contract-large bs=1024 count=200 2>/dev/null")

        with pytest.raises(GuestCommandFailed, match="/run/is-not-there"):
            machine.agent_read(PurePosixPath("/run/is-not-there"))
        with pytest.raises(GuestCommandFailed, match="larger than 1000 bytes"):
            machine.agent_read(PurePosixPath("/run/contract-large"), limit_bytes=1000)
        with pytest.raises(GuestCommandFailed, match="/is-not-there/x"):
            machine.agent_write(PurePosixPath("/is-not-there/x"), b"x")

    # -----------------------------------------------------------------------------------------------------
    # Addresses

    @proves(Capability.GUEST_ADDRESSES)
    def test_the_agent_tells_the_addresses_of_the_guest(self, hypervisor: Hypervisor, booted: Booted) -> None:
        machine: ReportsAddresses = answering(hypervisor, booted, Capability.GUEST_ADDRESSES)
        card = booted.sh("cd /sys/class/net; for card in *; do [ $card = lo ] || echo $card; done").split()[0]
        mac = booted.sh(f"cat /sys/class/net/{card}/address")
        known = dict(machine.agent_addresses())
        assert set(booted.machine.addresses()) & set(known[mac]), f"{known} holds none of the machine's addresses"

        booted.sh(f"ip address add 192.0.2.77/32 dev {card}")
        try:
            assert "192.0.2.77" in machine.agent_addresses()[mac]
        finally:
            booted.sh(f"ip address del 192.0.2.77/32 dev {card}")

        assert "192.0.2.77" not in machine.agent_addresses()[mac]
        assert not any("127.0.0.1" in found for found in machine.agent_addresses().values())

    # -----------------------------------------------------------------------------------------------------
    # File systems at rest

    @pytest.fixture
    def frozen(self, hypervisor: Hypervisor, booted: Booted) -> Iterator[FreezesFilesystems]:
        machine: FreezesFilesystems = answering(hypervisor, booted, Capability.FILESYSTEM_FREEZE)
        yield machine
        machine.thaw()

    @proves(Capability.FILESYSTEM_FREEZE)
    def test_nothing_is_written_while_file_systems_rest(self, booted: Booted, frozen: FreezesFilesystems) -> None:
        token = f"/var/tmp/contract-{uuid.uuid4().hex}"
        booted.sh("sync")

        assert frozen.freeze() >= 1
        try:
            with pytest.raises(HypervisorRefused):
                frozen.freeze()
            booted.sh(f"(echo frozen >{token}; echo done >/run/contract-written) >/dev/null 2>&1 & sleep 3")
            assert booted.sh("ls /run").split().count("contract-written") == 0
        finally:
            assert frozen.thaw() >= 1

        waiting.until(
            lambda: booted.sh("cat /run/contract-written 2>/dev/null || echo") == "done",
            what="the write to end",
            timeout_s=_SEEN_S,
        )
        assert booted.sh(f"cat {token}; rm -f {token} /run/contract-written") == "frozen"
        assert frozen.thaw() == 0

    # -----------------------------------------------------------------------------------------------------
    # A machine without a guest

    @proves(Capability.GUEST_COMMANDS)
    def test_a_stopped_machine_has_no_agent(self, hypervisor: Hypervisor, made: Machine) -> None:
        machine: RunsInGuest = capable(hypervisor, made, Capability.GUEST_COMMANDS)

        assert not machine.agent_answers()
        with pytest.raises(LabError):
            machine.agent_run(["true"])

    # -----------------------------------------------------------------------------------------------------
    # vsock

    @proves(Capability.VSOCK)
    def test_a_vsock_port_of_a_stopped_machine_is_refused(self, hypervisor: Hypervisor, made: Machine) -> None:
        machine: OffersVsock = capable(hypervisor, made, Capability.VSOCK)

        with pytest.raises(HypervisorRefused):
            machine.vsock_endpoint(1024)
