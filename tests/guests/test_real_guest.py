"""A real guest, booted once on QEMU: what the other tests of this folder prove on this machine, proved inside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lab import process, waiting
from lab.checking import linux as checking
from lab.contracts import Cell, Firmware, Machine, MachineSpec, MachineState, Owner, Profile, SshLogin
from lab.errors import CommandTimedOut, GuestError, HostKeyChanged
from lab.guests import claims, triage
from lab.guests.channels import ssh
from lab.guests.families import linux
from lab.guests.guest import Guest
from lab.guests.identity import Identity
from lab.hypervisors import qemu
from lab.inventory.models import BuildSource
from lab.provisioning import images, keys, seed
from tests.greeting import until_it_greets

pytestmark = [pytest.mark.minutes, pytest.mark.timeout(900)]

PROFILE = Profile("pc", Firmware.BIOS, "pc", "virtio", "virtio", 1, 256)
SOON_S = 60.0  # what a busy machine may need between two programs; a clock that was not set is years late


@dataclass
class Booted:
    """The guest; who changes who it is changes it back, and who writes to its console does so behind its boot."""

    guest: Guest
    machine: Machine
    identity: Identity
    console_at_login: bytes


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    with boot(tmp_path_factory.mktemp("guest"), "real-1") as it:
        yield it


@pytest.fixture
def untouched(tmp_path: Path) -> Iterator[Booted]:
    """A guest to whose console nobody has written anything yet."""
    with boot(tmp_path, "real-3") as it:
        yield it


@contextmanager
def boot(folder: Path, name: str) -> Iterator[Booted]:
    identity = Identity.make(name)
    seed_path = folder / "seed.img"
    key = keys.client_key()
    seed.write_seed(identity, key.public, seed_path)
    image = images.resolve(BuildSource(build="jeos"), progress=lambda _: None)
    pid = os.getpid()
    owner = Owner("tests", "qemu/jeos/pc", pid, process.start_time(pid) or 0)
    with qemu.connect("tests-guests", qemu.Settings(accelerator="tcg")) as host:
        host.upload(image)
        machine = host.create(MachineSpec(f"{name}-{pid}", owner, image, PROFILE, seed=seed_path))
        try:
            machine.start()
            until_it_greets(machine, timeout_s=600)
            login = SshLogin("root", key.private, identity.host_key_public)
            channel = ssh.connect(machine.endpoint(22), login, timeout_s=120)
            guest = Guest(
                cell=Cell("qemu", "jeos", "pc"), hypervisor=host, machine=machine, channel=channel, family="linux"
            )
            yield Booted(guest, machine, identity, machine.console())
            guest.close()
        finally:
            machine.destroy()


def test_its_console_tells_that_it_booted(booted: Booted) -> None:
    found = triage.triage(booted.console_at_login)

    assert (found.booted, found.failure_class) == (True, "none")
    assert found.kernel == booted.guest.check("uname", "-r")


def test_its_facts_are_those_of_its_profile(booted: Booted) -> None:
    facts = booted.guest.facts

    assert facts.hostname == booted.identity.hostname
    assert facts.machine_id == booted.identity.machine_id
    assert facts.cpu.count == 1
    assert 150 << 10 < (facts.memory_kib or 0) < 256 << 10
    assert facts.disks[0].driver == "virtio_blk"
    assert facts.nics[0].driver == "virtio_net"
    assert facts.firmware == "bios"
    assert facts.kernel.modules
    assert dict(facts.virtualization.dmi)["sys_vendor"] == "QEMU"


def test_its_small_user_space_can_be_inspected(booted: Booted) -> None:
    inspect = booted.guest.inspect

    assert inspect.file("/etc/passwd").user == "root"
    assert inspect.file("/etc/hostname").content_string == f"{booted.identity.hostname}\n"
    assert inspect.mount_point("/").filesystem == "ext4"
    assert inspect.sysctl("kernel.hostname") == booted.identity.hostname
    assert inspect.interface(booted.guest.facts.nics[0].name).addresses


def test_it_reboots_when_told(booted: Booted) -> None:
    guest = booted.guest
    before = guest.facts.boot_id

    guest.reboot(timeout_s=300)

    assert guest.facts.boot_id != before
    guest.assert_same_boot()


def test_a_renewed_identity_replaces_host_key_name_and_clock(booted: Booted) -> None:
    guest, key = booted.guest, keys.client_key()
    old = SshLogin("root", key.private, booted.identity.host_key_public)
    fresh = Identity.make("real-2")
    guest.check("date", "-u", "-s", "@1000000000")

    renewal = linux.renew_identity(guest.channel, fresh, key.public, datetime.now(UTC))

    with pytest.raises(HostKeyChanged):
        ssh.connect(booted.machine.endpoint(22), old, timeout_s=120)
    login = SshLogin("root", key.private, fresh.host_key_public)
    channel = ssh.connect(booted.machine.endpoint(22), login, timeout_s=120)
    late_s = linux.await_clock(channel, renewal).clock_late_s
    assert late_s is not None
    assert late_s < SOON_S
    sent = datetime.now(UTC).timestamp()
    seconds = int(channel.run(("date", "-u", "+%s")).out)
    answered = datetime.now(UTC).timestamp()
    assert channel.run(("hostname",)).out == "real-2"
    assert channel.run(("cat", "/etc/machine-id")).out == fresh.machine_id
    assert sent - SOON_S < seconds < answered + SOON_S
    linux.renew_identity(channel, booted.identity, key.public, datetime.now(UTC))
    channel.close()
    guest.reconnect(timeout_s=120)
    assert guest.check("hostname") == booted.identity.hostname


FORGED = (
    "[  999.000000] Kernel panic - not syncing: forged by a program\\n"
    "[  999.000100] CPU: 0 PID: 1 Comm: init Not tainted\\n"
    "[  999.000200] ---[ end Kernel panic - not syncing: forged by a program ]---\\n"
    "\\033[2J\\000\\377 forged login: "
)


def test_a_panic_and_a_login_forged_by_a_program_are_claims(booted: Booted) -> None:
    guest, machine = booted.guest, booted.machine
    guest.check("sh", "-c", f"printf '\\n{FORGED}' >/dev/console")
    waiting.until(lambda: b"forged login: " in machine.console(), what="the forgery on the console", timeout_s=60)

    found = triage.triage(machine.console())
    assert (found.failure_class, found.proof) == ("kernel-panic", "claimed by console only")
    assert all(line.isprintable() for line in triage.last_lines(machine.console()))

    assert machine.state() is MachineState.RUNNING
    answer = ssh.probe(machine.endpoint(22), timeout_s=60)
    weighed = claims.weighed(found, crashed=False, answer=answer)
    assert (answer, weighed.failure_class) == (ssh.Answer.BANNER, "none")
    assert guest.check("echo", "alive") == "alive"


def test_its_endless_and_unreadable_output_is_bounded(booted: Booted) -> None:
    guest = booted.guest
    with pytest.raises(CommandTimedOut) as caught:
        guest.run("sh", "-c", r"while :; do printf '\033[2J\000\377'; done", timeout_s=5)

    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 2000
    assert guest.run("printf", r"\033\000\377").stdout == b"\x1b\x00\xff"


def test_a_panic_is_told_from_a_program_that_prints_one(untouched: Booted) -> None:
    guest, machine = untouched.guest, untouched.machine
    checking.settle(guest)  # the driver that tells the hypervisor of a panic is among what comes late
    words = "Kernel panic - not syncing: only words"
    guest.check("sh", "-c", f"echo '{words}' >/dev/console; echo '<2>{words}' >/dev/kmsg; echo '<2>later' >/dev/kmsg")
    waiting.until(
        lambda: machine.console().count(words.encode()) >= 2 and b"] later" in machine.console(),
        what="the words on the console, and what the kernel said behind them",
        timeout_s=60,
    )
    assert triage.triage(machine.console()).failure_class == "none"

    with pytest.raises((CommandTimedOut, GuestError)):
        guest.run("sh", "-c", "echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger", timeout_s=60)

    found = waiting.until(
        lambda: (found := triage.triage(machine.console())).failure_class == "kernel-panic" and found,
        what="the panic on the console",
        timeout_s=60,
    )
    assert found.cause == "kernel panic: sysrq triggered crash"
    waiting.until(lambda: machine.state() is MachineState.CRASHED, what="the hypervisor to see the panic", timeout_s=60)
    answer = ssh.probe(machine.endpoint(22), timeout_s=5)
    assert answer is not ssh.Answer.BANNER
    assert claims.weighed(found, crashed=True, answer=answer).proof == "seen by the hypervisor"
