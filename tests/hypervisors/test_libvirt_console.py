"""The console of a libvirt machine on disk: a guest that never stops talking takes a bounded part of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import waiting
from lab.hypervisors import _libvirt_console as console
from lab.hypervisors import _libvirt_daemon as daemons
from lab.hypervisors._libvirt_domain import Network
from lab.hypervisors._libvirt_host import LibvirtHost
from lab.hypervisors._libvirt_link import Link
from lab.hypervisors._libvirt_machine import LibvirtMachine
from lab.hypervisors._libvirt_power import Machine, Site
from lab.hypervisors._libvirt_storage import Pool
from tests.hypervisors import libvirt_own as own

OF_A_FILE = 1 << 16


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LibvirtHost]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(daemons, "LOG_BYTES", OF_A_FILE)
        with own.connected(tmp_path_factory) as host:
            yield host


@pytest.fixture
def talking(host: LibvirtHost, tmp_path: Path) -> Iterator[LibvirtMachine]:
    """A guest that has said so much that its first words were thrown away."""
    machine = host.create(own.spec_of(tmp_path, "endless"))
    assert isinstance(machine, LibvirtMachine)
    machine.start()
    oldest = Path(machine._machine.path(f"{console.LOG}.{daemons.LOG_PARTS - 2}"))
    waiting.until(oldest.exists, what="all files of the console", timeout_s=120)
    first = oldest.stat().st_ino
    waiting.until(lambda: _inode(oldest) not in (0, first), what="the first to be thrown away", timeout_s=120)
    yield machine
    machine.destroy()


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0  # between two renames


def test_the_files_of_a_console_are_read_in_the_order_in_which_they_were_written(tmp_path: Path) -> None:
    pool = Pool(Link("here", "test:///default"), str(tmp_path), is_here=True)
    machine = Machine(Site("here", (), pool, "qemu", Network(), is_here=True), "an-uuid", "one")
    for name, said in (
        ("console.10", b"first "),
        ("console.9", b"second "),
        ("console.0", b"third "),
        ("console", b"last"),
        ("console.new", b"not of it"),
    ):
        (tmp_path / f"an-uuid.{name}").write_bytes(said)

    assert console.read(machine) == b"first second third last"


def test_the_log_of_an_endless_console_is_bounded_and_read_whole(talking: LibvirtMachine) -> None:
    talking.pause()
    folder = Path(talking._machine.path(console.LOG)).parent

    sizes = [path.stat().st_size for path in folder.glob(f"{talking.uuid}.console*")]

    assert len(sizes) == daemons.LOG_PARTS
    assert sum(sizes) <= daemons.LOG_PARTS * OF_A_FILE
    assert talking.console() == b"x" * sum(sizes)
    talking.destroy()
    assert list(folder.glob(f"{talking.uuid}*")) == []


def test_what_is_read_of_it_is_the_beginning_and_the_end(
    talking: LibvirtMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    talking.pause()
    whole = len(talking.console())
    monkeypatch.setattr(console, "_KEPT", 1000)

    read = talking.console()

    assert read == b"x" * 1000 + b"\n[%d bytes of the console are not kept]\n" % (whole - 2000) + b"x" * 1000
