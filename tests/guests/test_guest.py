"""A guest runs, checks, reboots and notices what happens behind its back; the machine below it is a fake."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePath
from typing import Any, cast

import pytest

from lab.contracts import Cell, CommandResult, Endpoint, Machine, MachineState
from lab.errors import (
    ConfigurationError,
    GuestCommandFailed,
    GuestPanicked,
    GuestRebooted,
    GuestUnreachable,
    HypervisorRefused,
)
from lab.guests import claims
from lab.guests import guest as guest_module
from lab.guests.channels import ssh
from lab.guests.channels.ssh import Answer
from lab.guests.guest import Guest

CELL = Cell("qemu", "jeos", "pc")
BOOTS = [f"{number:08d}-0000-4000-8000-000000000000" for number in range(5)]
PANIC = b"[    9.000000] Kernel panic - not syncing: Attempted to kill init!\n"


class FakeMachine:
    """What `Guest` asks of a machine."""

    name = "m"

    def __init__(self) -> None:
        self.log = b"[    0.000000] Linux version 6.1\nhost login: \n"
        self.now = MachineState.RUNNING

    def state(self) -> MachineState:
        return self.now

    def console(self) -> bytes:
        return self.log


class FakeChannel:
    """A guest with a boot id that goes away when told to reboot, and comes back as `comes_back` says."""

    endpoint = Endpoint("127.0.0.1", 1)

    def __init__(self) -> None:
        self.boot = 0
        self.connected = True
        self.asked: list[tuple[str, ...]] = []
        self.reboots: Callable[[], None] = self._restart
        self.tries = 0

    def _restart(self) -> None:
        self.boot += 1
        self.connected = False
        raise GuestUnreachable("gone")

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = 60.0) -> CommandResult:
        self.asked.append(tuple(argv))
        if not self.connected:
            raise GuestUnreachable("not connected")
        status, out, err = 0, b"", b""
        match tuple(argv):
            case ("reboot",):
                self.reboots()
            case ("cat", "/proc/sys/kernel/random/boot_id"):
                out = BOOTS[self.boot].encode() + b"\n"
            case ("false",):
                status, err = 1, b"nothing \x1b works\n"
            case ("echo", *words):
                out = " ".join(words).encode() + b"\n"
        return CommandResult(tuple(argv), status, out, err, 0.0)

    def stream(self, argv: Sequence[str], *, timeout_s: float = 60.0, limit_bytes: int = 0) -> Iterator[bytes]:
        yield b""

    def read(self, path: PurePath, *, limit_bytes: int = 0) -> bytes:
        return str(path).encode()

    def write(self, path: PurePath, data: bytes, *, mode: int = 0o644) -> None:
        self.asked.append(("write", str(path), data.decode()))

    def close(self) -> None:
        self.connected = False

    def reconnect(self, timeout_s: float, *, endpoint: Endpoint | None = None) -> None:
        self.tries += 1
        if self.tries < 3:
            raise GuestUnreachable("not yet")
        self.connected = True


@pytest.fixture
def machine() -> FakeMachine:
    return FakeMachine()


@pytest.fixture
def channel() -> FakeChannel:
    return FakeChannel()


@pytest.fixture
def guest(machine: FakeMachine, channel: FakeChannel, monkeypatch: pytest.MonkeyPatch) -> Guest:
    monkeypatch.setattr(guest_module, "probe", lambda endpoint, timeout_s: Answer.BANNER)
    return _guest(machine, channel)


def _guest(machine: FakeMachine, channel: Any, family: str = "linux") -> Guest:
    return Guest(cell=CELL, hypervisor=cast(Any, None), machine=cast(Machine, machine), channel=channel, family=family)


def test_check_returns_the_output(guest: Guest) -> None:
    assert guest.check("echo", "a", "b") == "a b"


def test_check_raises_with_status_and_errors(guest: Guest) -> None:
    with pytest.raises(GuestCommandFailed) as caught:
        guest.check("false")

    assert caught.value.what == "false ended with status 1: 'nothing \\x1b works'"


def test_run_returns_a_failure_as_a_result(guest: Guest) -> None:
    assert guest.run("false").status == 1


def test_an_unknown_family_is_refused(machine: FakeMachine, channel: FakeChannel) -> None:
    with pytest.raises(ConfigurationError, match="no family 'plan9'"):
        _guest(machine, channel, "plan9")


def test_files_are_named_as_text_or_path(guest: Guest, channel: FakeChannel) -> None:
    guest.write("/etc/motd", b"hello")

    assert guest.read("/etc/motd") == b"/etc/motd"
    assert channel.asked[-1] == ("write", "/etc/motd", "hello")


def test_a_guest_that_stayed_up_is_the_same_boot(guest: Guest) -> None:
    guest.assert_same_boot()
    guest.assert_same_boot()


def test_a_reboot_of_its_own_is_noticed_once(guest: Guest, channel: FakeChannel) -> None:
    guest.assert_same_boot()
    channel.boot += 1

    with pytest.raises(GuestRebooted) as caught:
        guest.assert_same_boot()
    guest.assert_same_boot()

    assert caught.value.what == (
        f"qemu/jeos/pc: the guest rebooted by itself: its boot id was {BOOTS[0]}, now it is {BOOTS[1]}"
    )


def test_a_wanted_reboot_is_no_surprise(guest: Guest, channel: FakeChannel) -> None:
    guest.assert_same_boot()

    guest.reboot(timeout_s=30)

    guest.assert_same_boot()
    assert guest.boot_id == BOOTS[1]
    assert channel.tries == 3


def test_a_guest_that_does_not_go_down_is_told(guest: Guest, channel: FakeChannel) -> None:
    channel.reboots = lambda: None
    channel.tries = 3

    with pytest.raises(GuestCommandFailed) as caught:
        guest.reboot(timeout_s=0.3)

    assert caught.value.what == "qemu/jeos/pc: the guest was told to reboot and did not within 0 s"


def test_a_panic_on_the_way_up_ends_the_waiting(guest: Guest, channel: FakeChannel, machine: FakeMachine) -> None:
    def panics() -> None:
        machine.log += b"[    0.000000] Linux version 6.1\n" + PANIC
        machine.now = MachineState.CRASHED
        channel.connected = False
        raise GuestUnreachable("gone")

    channel.reboots = panics
    channel.tries = -1000

    with pytest.raises(GuestPanicked, match=r"kernel panic: Attempted to kill init! \(seen by the hypervisor\)"):
        guest.reboot(timeout_s=60)


def test_a_panic_that_only_the_console_tells_of_ends_the_waiting_after_silence(
    guest: Guest, channel: FakeChannel, machine: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def panics() -> None:
        machine.log += b"[    0.000000] Linux version 6.1\n" + PANIC
        channel.connected = False
        raise GuestUnreachable("gone")

    channel.reboots = panics
    monkeypatch.setattr(guest_module, "probe", lambda endpoint, timeout_s: Answer.CLOSED)
    monkeypatch.setattr(claims, "QUIET_S", 0.1)

    with pytest.raises(GuestPanicked, match="claimed by console only, and user space answers no more"):
        guest.reboot(timeout_s=60)


def test_a_guest_that_prints_a_panic_and_comes_back_has_rebooted(
    guest: Guest, channel: FakeChannel, machine: FakeMachine
) -> None:
    def prints() -> None:
        machine.log += b"[    0.000000] Linux version 6.1\n" + PANIC
        channel._restart()

    channel.reboots = prints

    guest.reboot(timeout_s=60)

    assert guest.boot_id == BOOTS[1]


def test_a_panic_of_an_earlier_boot_does_not_count(guest: Guest, machine: FakeMachine) -> None:
    machine.log = PANIC * 3

    guest.reboot(timeout_s=30)

    assert guest.boot_id == BOOTS[1]


def test_a_refused_reboot_is_told(guest: Guest, channel: FakeChannel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest._commands, "REBOOT", ("false",))

    with pytest.raises(GuestCommandFailed, match="false ended with status 1"):
        guest.reboot(timeout_s=5)


def test_what_the_machine_refuses_goes_through(guest: Guest, machine: FakeMachine) -> None:
    def refuses() -> bytes:
        raise HypervisorRefused("no console")

    machine.console = refuses  # type: ignore[method-assign]

    with pytest.raises(HypervisorRefused):
        guest.reboot(timeout_s=5)


def test_facts_are_gathered_once_per_boot(sshd: Any, machine: FakeMachine) -> None:
    channel = ssh.connect(sshd.endpoint, sshd.login, timeout_s=60)
    guest = _guest(machine, channel)

    first = guest.facts
    assert guest.facts is first
    guest.reconnect(timeout_s=60)

    assert guest.facts is not first
    assert guest.facts.boot_id == first.boot_id
    guest.close()


# -- inspection -------------------------------------------------------------------------------------------


@pytest.fixture
def inspected(sshd: Any, machine: FakeMachine) -> Iterator[Any]:
    guest = _guest(machine, ssh.connect(sshd.endpoint, sshd.login, timeout_s=60))
    yield guest.inspect
    guest.close()


def test_files_can_be_inspected(inspected: Any) -> None:
    passwd = inspected.file("/etc/passwd")

    assert (passwd.exists, passwd.user, passwd.mode) == (True, "root", 0o644)
    assert passwd.contains("root:x:0:0")
    assert not inspected.file("/no/such/file").exists


def test_content_that_is_not_ascii_can_be_inspected(inspected: Any, tmp_path: Any) -> None:
    (tmp_path / "a file").write_text("größer\n")

    assert inspected.file(str(tmp_path / "a file")).content_string == "größer\n"


def test_packages_processes_and_users_can_be_inspected(inspected: Any) -> None:
    assert inspected.package("openssh-server").is_installed
    assert not inspected.package("no-such-package").is_installed
    assert any(process.comm == "sshd" for process in inspected.process.filter(user="root"))
    assert inspected.user("root").uid == 0


def test_kernel_settings_interfaces_and_mounts_can_be_inspected(inspected: Any) -> None:
    assert inspected.sysctl("kernel.ostype") == "Linux"
    assert inspected.interface("lo").addresses[0] == "127.0.0.1"
    assert inspected.mount_point("/proc").filesystem == "proc"
    assert inspected.system_info.type == "linux"


def test_an_inspection_quotes_its_arguments(inspected: Any) -> None:
    result = inspected.run("printf %s", "a; b $(c)")

    assert (result.rc, result.stdout) == (0, "a; b $(c)")
