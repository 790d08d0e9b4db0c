"""Facts, boot id and renewal of Linux guests, over real servers and with hostile answers."""

from __future__ import annotations

import os
import platform
import re
import socket
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.contracts import CommandResult
from lab.errors import ConfigurationError, GuestCommandFailed
from lab.guests.channels import ssh
from lab.guests.facts import BlockDevice, Facts, Mount, Nic
from lab.guests.families import _linux_facts, _linux_renewal, linux
from lab.guests.identity import Identity

NOW = datetime(2026, 11, 22, 8, 0, 0, 250_000, tzinfo=UTC)


class FixedChannel:
    """A channel whose guest says one thing, and which remembers what it was asked."""

    def __init__(self, stdout: bytes, status: int = 0, stderr: bytes = b"") -> None:
        self.result = CommandResult((), status, stdout, stderr, 0.5)
        self.asked: list[tuple[tuple[str, ...], bytes]] = []

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = 60.0) -> CommandResult:
        self.asked.append((tuple(argv), stdin))
        return self.result

    def stream(self, argv: Sequence[str], *, timeout_s: float = 60.0, limit_bytes: int = 0) -> Iterator[bytes]:
        yield self.result.stdout

    def read(self, path: PurePath, *, limit_bytes: int = 0) -> bytes:
        return self.result.stdout

    def write(self, path: PurePath, data: bytes, *, mode: int = 0o644) -> None: ...

    def close(self) -> None: ...


@pytest.fixture(params=["sshd", "dropbear"])
def channel(request: pytest.FixtureRequest) -> Iterator[ssh.SshChannel]:
    server = request.getfixturevalue(request.param)
    channel = ssh.connect(server.endpoint, server.login, timeout_s=60)
    yield channel
    channel.close()


def test_facts_of_this_machine_are_those_that_it_tells_otherwise(channel: ssh.SshChannel) -> None:
    facts = linux.gather(channel)

    assert facts.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert facts.hostname == socket.gethostname()
    assert facts.kernel.release == platform.release()
    assert facts.kernel.arch == platform.machine()
    assert facts.kernel.arguments == Path("/proc/cmdline").read_text().strip()[:400]
    assert facts.cpu.count == os.cpu_count()
    assert facts.memory_kib == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024
    assert facts.clock.seconds is not None
    assert abs(facts.clock.seconds - datetime.now(UTC).timestamp()) < 60
    assert any(mount.path == "/proc" for mount in facts.mounts)


def test_facts_come_in_one_round_trip() -> None:
    asked = FixedChannel(b"")

    with pytest.raises(GuestCommandFailed, match="did not tell its facts to the end"):
        linux.gather(asked)

    assert len(asked.asked) == 1


ANSWER = """
N files
/proc/sys/kernel/random/boot_id:0309bcf8-9bee-4d4a-ad90-3be543576dec
/etc/os-release:ID=alpine
/etc/os-release:PRETTY_NAME="Alpine Linux v3.23"
/etc/os-release:VERSION_ID='3.23.0
/proc/sys/kernel/tainted:512
/sys/block/vda/size:2048
/sys/block/vda/ro:0
/sys/block/vda/serial:lab-root
/sys/block/vda/queue/rotational:1
/sys/block/sda/size:4096
/sys/block/sda/ro:1
/sys/block/sda/device/model:QEMU HARDDISK
/sys/block/nvme0n1/device/model:QEMU NVMe Ctrl
/sys/block/nvme0n1/device/serial:lab-data
/sys/block/loop0/size:0
/sys/class/net/eth0/address:52:54:00:12:34:56
/sys/class/net/eth0/mtu:1500
/sys/class/net/eth0/operstate:up
/sys/class/net/eth0/speed:-1
/sys/class/net/lo/address:00:00:00:00:00:00
/sys/class/dmi/id/sys_vendor:QEMU
/proc/uptime:12.50 3.10

N links
lrwxrwxrwx 1 root root 0 Jan 1 00:00 /sys/block/vda -> ../devices/pci0000:00/0000:00:03.0/virtio0/block/vda
lrwxrwxrwx 1 root root 0 Jan 1 00:00 /sys/block/sda -> ../devices/pci0000:00/0000:00:04.0/host2/target2/block/sda
lrwxrwxrwx 1 root root 0 Jan 1 00:00 /sys/block/sdb -> ../devices/pci0000:00/0000:00:07.0/virtio4/host3/block/sdb
lrwxrwxrwx 1 root root 0 Jan 1 00:00 /sys/block/nvme0n1 -> ../devices/pci0000:00/0000:00:05.0/nvme/nvme0/nvme0n1
lrwxrwxrwx 1 root root 0 Jan 1 00:00 /sys/block/loop0 -> ../devices/virtual/block/loop0
lrwxrwxrwx 1 root root 0 Jan 1 00:00 /sys/block/vda/device/driver -> ../../../../bus/virtio/drivers/virtio_blk
lrwxrwxrwx 1 root root 0 Jan 1 00:00 /sys/block/sda/device/driver -> ../../../../../../bus/scsi/drivers/sd
lrwxrwxrwx 1 root root 0 Jan 1 00:00 /sys/block/sdb/device/driver -> ../../../../../../bus/scsi/drivers/sd
lrwxrwxrwx 1 root root 0 Jan 1 00:00 /sys/block/nvme0n1/device/device/driver -> ../../../bus/pci/drivers/nvme
lrwxrwxrwx 1 root root 0 Jan 1 00:00 /sys/bus/pci/devices/0000:00:04.0/driver -> ../../../bus/pci/drivers/vmw_pvscsi
lrwxrwxrwx 1 root root 0 Jan 1 00:00 /sys/bus/pci/devices/0000:00:07.0/driver -> ../../../bus/pci/drivers/virtio-pci
lrwxrwxrwx 1 root root 0 Jan 1 00:00 /sys/bus/virtio/devices/virtio4/driver -> ../../../bus/virtio/drivers/virtio_scsi
lrwxrwxrwx 1 root root 0 Jan 1 00:00 /sys/class/net/eth0 -> ../../devices/pci0000:00/0000:00:06.0/net/eth0
lrwxrwxrwx 1 root root 0 Jan 1 00:00 /sys/class/net/lo -> ../../devices/virtual/net/lo
lrwxrwxrwx 1 root root 0 Jan 1 00:00 /sys/class/net/eth0/device/driver -> ../../../bus/pci/drivers/e1000e

N mounts
/dev/vda / ext4 rw,relatime 0 0

N addresses
2: eth0    inet 10.0.2.15/24 brd 10.0.2.255 scope global eth0
2: eth0    inet6 fe80::1/64 scope link

N log
[    0.000000] Hypervisor detected: KVM

N failed
foo.service loaded failed failed Foo

N end
"""


def test_devices_are_named_by_the_driver_that_differs_between_machines() -> None:
    facts = _linux_facts.read(ANSWER, "N")

    assert facts.disks == (
        BlockDevice("nvme0n1", None, "nvme", "QEMU NVMe Ctrl", "lab-data"),
        BlockDevice("sda", 4096 * 512, "vmw_pvscsi", "QEMU HARDDISK", read_only=True),
        BlockDevice("sdb", None, "virtio_scsi"),
        BlockDevice("vda", 2048 * 512, "virtio_blk", "", "lab-root", rotational=True),
    )
    assert facts.nics == (Nic("eth0", "e1000e", "52:54:00:12:34:56", 1500, True, None, ("10.0.2.15/24", "fe80::1/64")),)


def test_the_rest_of_the_answer_is_read() -> None:
    facts = _linux_facts.read(ANSWER, "N")

    assert (facts.os.id, facts.os.name, facts.os.version) == ("alpine", "Alpine Linux v3.23", "'3.23.0")
    assert facts.kernel.taint == 512
    assert facts.clock.uptime_s == 12.5
    assert facts.firmware == "bios"
    assert facts.mounts == (Mount("/", "/dev/vda", "ext4", "rw,relatime"),)
    assert facts.virtualization.hypervisor == "KVM"
    assert facts.failed_units == ("foo.service",)


def test_facts_become_plain_json() -> None:
    plain = _linux_facts.read(ANSWER, "N").as_json()

    assert plain["virtualization"]["dmi"] == {"sys_vendor": "QEMU"}
    assert plain["disks"][0]["name"] == "nvme0n1"
    assert Facts().as_json()["memory_kib"] is None


_PIECES = st.one_of(
    st.sampled_from([*ANSWER.split("\n"), "N files", "N links", "N end", "N cpu", ":", " -> ", "/sys/block/", "\0"]),
    st.text(max_size=40),
)


@settings(max_examples=400)
@given(st.lists(_PIECES, max_size=40))
def test_no_answer_gives_another_error_than_ours(pieces: list[str]) -> None:
    answer = "\n".join(pieces)
    try:
        facts = _linux_facts.read(answer, "N")
    except GuestCommandFailed:
        return

    assert all(disk.name.isprintable() and disk.serial.isprintable() for disk in facts.disks)
    assert facts.hostname.isprintable()
    assert len(facts.os.name) <= 400


def test_the_boot_id_is_that_of_this_machine(channel: ssh.SshChannel) -> None:
    assert linux.boot_id(channel) == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_something_else_is_no_boot_id() -> None:
    with pytest.raises(GuestCommandFailed) as caught:
        linux.boot_id(FixedChannel(b"", 1, b"cat: can't open it"))

    assert caught.value.what == 'the guest has no boot id: status 1, "cat: can\'t open it"'


# -- renewal ------------------------------------------------------------------------------------------------


def test_the_private_key_travels_by_standard_input_only() -> None:
    identity = Identity.make("clone-1")
    channel = FixedChannel(b"clock 1795334400.500000000 reseeded yes\n")

    renewal = linux.renew_identity(channel, identity, "ssh-ed25519 AAAA lab", NOW)

    ((argv, stdin),) = channel.asked
    assert "PRIVATE KEY" not in " ".join(argv)
    assert identity.host_key_private.encode() in stdin
    assert b"clone-1\n" in stdin
    assert renewal.clock_late_s is not None
    assert (renewal.reseeded, round(renewal.clock_late_s, 3)) == (True, 0.25)
    assert linux.await_clock(channel, renewal) == renewal


def test_entropy_differs_each_time() -> None:
    identity = Identity.make("clone-1")
    one = _linux_renewal.content(identity, "key", NOW).split(b"\n")[1]
    other = _linux_renewal.content(identity, "key", NOW).split(b"\n")[1]

    assert one != other
    assert len(one) == 128  # 96 random bytes


def test_a_guest_that_refuses_its_identity_is_told_without_the_key() -> None:
    identity = Identity.make("clone-1")

    with pytest.raises(GuestCommandFailed) as caught:
        linux.renew_identity(FixedChannel(b"", 1, b"read-only file system"), identity, "key", NOW)

    assert caught.value.what == "the guest did not take its new identity: status 1, 'read-only file system'"


def test_an_answer_without_clock_makes_no_sense() -> None:
    with pytest.raises(GuestCommandFailed, match="makes no sense: 'what\\?'"):
        linux.renew_identity(FixedChannel(b"what?"), Identity.make("a"), "key", NOW)


def test_a_clock_that_waits_for_its_second_is_waited_for() -> None:
    told = linux.renew_identity(FixedChannel(b"ticking 123 reseeded no\n"), Identity.make("a"), "key", NOW)
    channel = FixedChannel(f"{datetime.now(UTC).timestamp():.0f}\n".encode())

    renewal = linux.await_clock(channel, told)

    assert (told.clock_late_s, told.ticking) == (None, 123)
    assert channel.asked[0][0][-1] == "123"
    assert renewal.ticking is None
    assert renewal.clock_late_s is not None
    assert abs(renewal.clock_late_s) < 60


@pytest.mark.parametrize("answer", [b"1000000000\n", b"", b"date: not found\n"])
def test_a_clock_that_was_not_set_is_noticed(answer: bytes) -> None:
    told = linux.renew_identity(FixedChannel(b"ticking 123 reseeded no\n"), Identity.make("a"), "key", NOW)

    with pytest.raises(GuestCommandFailed, match="the guest did not take the time"):
        linux.await_clock(FixedChannel(answer), told)


def test_an_authorized_key_of_two_lines_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="one line"):
        _linux_renewal.content(Identity.make("a"), "one\ntwo", NOW)


@pytest.fixture
def staged(tmp_path: Path) -> dict[str, Any]:
    """The renewal's script with programs that only write down what they are asked.

    As shell functions, because busybox's shell prefers its own programs over those on the path and would set the
    clock of this machine; and the test takes the right to do so from the script as well.
    """
    programs = tmp_path / "bin"
    programs.mkdir()
    wholes = tmp_path / "whole-seconds-only"
    for name, text in {
        "date": f'[ -e {wholes} ] && case "$*" in *-s*.*) exit 1 ;; esac\n'
        f'case "$*" in *-s*) echo "$*" >>{tmp_path}/date ;; *) /bin/date "$@" ;; esac',
        "hostname": f'echo "$*" >>{tmp_path}/hostname',
        "kill": "exit 0",
        "perl": "exit 1",
        "python3": "exit 1",
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    script = _linux_renewal.SCRIPT
    for inside in ("/etc/", "/run/sshd.pid", "/usr/lib/interop-lab"):
        script = script.replace(inside, f"{tmp_path}{inside}")
    functions = "".join(f'{name}() {{ {programs}/{name} "$@"; }}\n' for name in ("date", "hostname", "kill"))
    script = functions + script
    (tmp_path / "etc/ssh").mkdir(parents=True)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/sshd.pid").write_text("1\n")
    environment = f"PATH={programs}:/usr/bin:/bin"
    return {"script": script, "environment": environment, "home": f"HOME={tmp_path}", "wholes": wholes}


@pytest.mark.parametrize("shell", [("dash",), ("busybox", "sh"), ("bash", "--posix")])
@pytest.mark.parametrize("fractions", [True, False])
def test_the_script_applies_an_identity_in_every_shell(
    staged: dict[str, Any], tmp_path: Path, shell: tuple[str, ...], fractions: bool
) -> None:
    from lab import process

    if not fractions:
        staged["wholes"].touch()
    identity = Identity.make("clone-1")
    powerless = ("setpriv", "--bounding-set=-sys_time,-sys_admin", "--inh-caps=-all")
    command = (*powerless, "env", "-i", staged["environment"], staged["home"], *shell, "-c", staged["script"])

    done = process.run(command, stdin=_linux_renewal.content(identity, "ssh-ed25519 AAAA lab", NOW), timeout_s=60)

    assert done.status == 0, done.stderr
    if not fractions:
        (ticking,) = re.fullmatch(r"ticking (\d+) reseeded no\n", done.stdout).groups()  # type: ignore[union-attr]
        waited = process.run([*shell, "-c", _linux_renewal.CLOCK, "sh", ticking], timeout_s=60)
        assert re.fullmatch(r"\d+\n", waited.stdout)
    else:
        assert re.fullmatch(r"clock \d+\.\d+ reseeded no\n", done.stdout)
    assert (tmp_path / "hostname").read_text() == "clone-1\n"
    assert (tmp_path / "etc/machine-id").read_text() == identity.machine_id + "\n"
    assert (tmp_path / "etc/ssh/ssh_host_ed25519_key").read_text() == identity.host_key_private
    assert (tmp_path / "etc/ssh/ssh_host_ed25519_key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / ".ssh/authorized_keys").read_text() == "ssh-ed25519 AAAA lab\n"
    set_to = (tmp_path / "date").read_text().split("@")[1]
    # The process around the script is this test's, which was started a while ago: the clock goes on from there.
    assert float(set_to) > NOW.timestamp()
    assert ("." in set_to) is fractions
