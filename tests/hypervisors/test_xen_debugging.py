"""What looks into a Xen guest from outside, before a toolstack of files: keys, dumps of memory, magic keys."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from lab.contracts import KEY_VALUE_BYTES, MachineState
from lab.errors import HostError, HypervisorRefused, LabDiskFull
from lab.hypervisors import _dump_file, _xen_dump, _xen_keys
from lab.hypervisors._xen_host import XenHost
from lab.hypervisors._xen_machine import XenMachine
from tests.hypervisors import xen_dom0
from tests.hypervisors.xen_dom0 import FakeDom0

NASTY = "-n a 'b' \"c\" $d `e` \\x41 \\ *\n\tü = {}"


@pytest.fixture
def host(fake: FakeDom0) -> Iterator[XenHost]:
    with fake.host() as host:
        yield host


@pytest.fixture
def machine(fake: FakeDom0, host: XenHost) -> Iterator[XenMachine]:
    with xen_dom0.made(fake, host) as machine:
        machine.start()
        yield machine


def data_of(fake: FakeDom0) -> Path:
    """Where the guest would write."""
    folder = fake.folder / f"keys/local/domain/{fake.domains()['lab-one']['domid']}/data"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# ---------------------------------------------------------------------------------------------------------
# Keys


def test_a_key_of_the_host_is_in_the_folder_that_the_guest_may_read(fake: FakeDom0, machine: XenMachine) -> None:
    machine.set_key("a-Key_1", NASTY)

    assert (data_of(fake) / "a-Key_1").read_bytes() == NASTY.encode()
    assert machine.key("a-Key_1") == NASTY
    machine.delete_key("a-Key_1")
    machine.delete_key("a-Key_1")
    assert machine.key("a-Key_1") is None


def test_a_key_of_the_guest_is_read_as_text_whatever_it_holds(fake: FakeDom0, machine: XenMachine) -> None:
    (data_of(fake) / "key").write_bytes(b"a\xff\0\\\n\x1b[2J")

    assert machine.key("key") == "a\ufffd\0\\\n\x1b[2J"


def test_an_empty_key_is_not_an_absent_one(fake: FakeDom0, machine: XenMachine) -> None:
    (data_of(fake) / "key").write_bytes(b"")

    assert machine.key("key") == ""
    assert machine.key("other") is None


@pytest.mark.parametrize("content", [b"x" * (KEY_VALUE_BYTES + 1), b"\xff" * (KEY_VALUE_BYTES + 1), bytes(1 << 20)])
def test_a_guest_that_leaves_too_much_is_told(fake: FakeDom0, machine: XenMachine, content: bytes) -> None:
    (data_of(fake) / "key").write_bytes(content)

    with pytest.raises(HypervisorRefused, match="one: 'key' holds more than 1000 bytes"):
        machine.key("key")


def test_the_longest_value_is_read_also_when_nothing_of_it_is_printable(fake: FakeDom0, machine: XenMachine) -> None:
    (data_of(fake) / "key").write_bytes(b"\x1f" * KEY_VALUE_BYTES)

    assert machine.key("key") == "\x1f" * KEY_VALUE_BYTES


def test_names_that_no_key_has_are_not_listed(fake: FakeDom0, machine: XenMachine) -> None:
    assert list(machine.key_names()) == []
    for name in ("b", "a", "x" * 65, "@sign", "-dash"):
        (data_of(fake) / name).write_bytes(b"")

    assert list(machine.key_names()) == ["a", "b"]


def test_a_dead_xenstored_is_not_an_absent_key(
    fake: FakeDom0, machine: XenMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_xen_keys, "_READ", 'echo "xenstore-read: xs_open: Connection refused" >&2')

    with pytest.raises(HostError, match="fake: xenstored does not answer: xenstore-read: xs_open: Connection refused"):
        machine.key("key")


@given(some.binary(max_size=200))
def test_what_is_written_down_is_read_again(data: bytes) -> None:
    assert _xen_keys.unescaped(f"{_xen_keys.escaped(data)}\n".encode()) == data
    assert _xen_keys.escaped(data).isascii()
    assert _xen_keys.escaped(data).isprintable()
    assert not _xen_keys.escaped(data).startswith("-")


def test_what_xenstore_read_writes_down_is_understood() -> None:
    assert _xen_keys.unescaped(rb"a\t\n\r\\x41\001\007\x1b\xff" + b"\n") == b"a\t\n\r\\x41\x01\x07\x1b\xff"


# ---------------------------------------------------------------------------------------------------------
# Dumps


def test_a_dump_is_made_while_the_guest_stands_still_and_it_goes_on(
    fake: FakeDom0, machine: XenMachine, tmp_path: Path
) -> None:
    (fake.folder / "memory").write_bytes(b"a secret")

    machine.dump_memory(tmp_path / "dump")

    dumped = tmp_path / "dump"
    begin = b"\x7fELF".ljust(16, b"\0") + b"\4\0" + b"flags -bp--- a secret"
    with dumped.open("rb") as file:
        assert file.read(len(begin)) == begin
    assert dumped.stat().st_size == len(begin) + (192 << 20)
    assert dumped.stat().st_blocks * 512 < 1 << 20, "memory that is zero takes no room"
    assert stat.S_IMODE(dumped.stat().st_mode) == 0o600
    assert machine.state() is MachineState.RUNNING
    assert [path.name for path in (fake.folder / "lab/machines/one").glob(".dump*")] == []


@pytest.mark.parametrize(("flags", "state"), [("--p---", MachineState.PAUSED), ("---sc-", MachineState.CRASHED)])
def test_who_stands_still_already_stays_so(
    fake: FakeDom0, machine: XenMachine, tmp_path: Path, flags: str, state: MachineState
) -> None:
    fake.put("lab-one", flags=flags)

    machine.dump_memory(tmp_path / "dump")

    assert (tmp_path / "dump").exists()
    assert machine.state() is state


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("dump-refused", "xl dump-core of one failed: .*Permission denied"),
        ("dump-breaks", "xl dump-core of one failed: .*Failed to write buffer"),
        ("dump-garbage", r"what xl dumped of one is no ELF file: it begins with b'GARB'"),
        ("dump-endless", "xl dumps more than 384 MiB of one"),
    ],
)
def test_a_dump_that_fails_leaves_no_file_and_the_guest_running(
    fake: FakeDom0, machine: XenMachine, tmp_path: Path, fault: str, words: str
) -> None:
    fake.fault(fault)

    with pytest.raises(HypervisorRefused, match=words):
        machine.dump_memory(tmp_path / "dump")

    assert list(tmp_path.iterdir()) == []
    goes_on = fake.folder / "lab/machines/one"
    xen_dom0.until_none(goes_on, ".dump*")
    assert machine.state() is MachineState.RUNNING


def test_a_dump_that_takes_too_long_is_given_up(
    fake: FakeDom0, machine: XenMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_xen_dump, "_DUMP_S", 2.0)
    fake.fault("hang-dump-core")

    with pytest.raises(HypervisorRefused, match="one"):
        machine.dump_memory(tmp_path / "dump")

    assert list(tmp_path.iterdir()) == []
    xen_dom0.until_none(fake.folder / "lab/machines/one", ".dump*")
    assert machine.state() is MachineState.RUNNING


def test_a_file_that_is_there_is_not_written_over(machine: XenMachine, tmp_path: Path) -> None:
    (tmp_path / "dump").write_bytes(b"mine")

    with pytest.raises(HypervisorRefused, match="/dump is there already"):
        machine.dump_memory(tmp_path / "dump")

    assert (tmp_path / "dump").read_bytes() == b"mine"


def test_a_full_disk_of_this_machine_is_the_labs_fault(tmp_path: Path) -> None:
    file = tmp_path / "dump"
    with pytest.raises(LabDiskFull, match="no space left on this machine"), _dump_file.begun(file):
        raise OSError(28, "No space left on device")

    assert not file.exists()


# ---------------------------------------------------------------------------------------------------------
# Magic keys


def test_a_magic_key_goes_to_the_domain(fake: FakeDom0, machine: XenMachine) -> None:
    machine.send_sysrq("h")

    assert b"sysrq: HELP : h" in machine.console()
    with pytest.raises(HypervisorRefused, match="'hh' is no magic SysRq key"):
        machine.send_sysrq("hh")
