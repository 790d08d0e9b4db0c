"""A made host for real: Debian's Xen and its dom0, restored from the frozen copy, which is made when there is none."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import locations
from lab.contracts import Image, Realness
from lab.hypervisors import xen
from lab.hypervisors._xen_link import Link
from lab.inventory.models import BuildSource, Host
from lab.provisioning import hosts, images, made_frozen, made_host

pytestmark = pytest.mark.minutes
NAME = "xen-of-tests"


@pytest.fixture(scope="module")
def image() -> Image:
    return images.resolve(BuildSource(build="xen-host"), progress=lambda line: None)


@pytest.fixture(scope="module")
def made(image: Image) -> Iterator[made_host.MadeHost]:
    left = made_host.existing(NAME)
    if left is not None:
        left.destroy()
    made = made_host.restore(NAME, image, lambda line: None)
    yield made
    made.destroy()


@pytest.fixture(scope="module")
def link(made: made_host.MadeHost) -> Iterator[Link]:
    link = Link(NAME, made.reached())
    link.open()
    yield link
    link.close()


def test_a_restored_host_answers_xl(link: Link) -> None:
    told = link.run(("xl", "info")).out

    assert "virt_caps              : pv" in told
    assert "xen_major              : 4" in told


def test_its_clock_is_this_machines(link: Link) -> None:
    before = time.time()
    there = float(link.run(("date", "+%s.%N")).out)

    assert before - 5 < there < time.time() + 5


def test_its_host_key_is_nobody_elses(made: made_host.MadeHost, link: Link) -> None:
    there = link.run(("ssh-keygen", "-y", "-f", "/run/ssh/ssh_host_ed25519_key")).out

    assert there.split()[:2] == made.mark.host_key.split()[:2]
    home = made_frozen.place(made.mark.frozen)
    assert b"OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA" not in (home / made_frozen.STATE).read_bytes()


def test_a_lent_disk_has_the_content_of_the_file(made: made_host.MadeHost, link: Link, tmp_path: Path) -> None:
    file = tmp_path / "lent.raw"
    file.write_bytes(b"interop lab".ljust(1 << 20, b"\0"))

    device = made.lend(file, "raw")

    assert link.run(("head", "-c", "11", device)).out == "interop lab"
    assert link.run(("blockdev", "--getro", "--getsize64", device)).out.split() == ["1", str(1 << 20)]
    made.take_back(file)


def test_who_connects_shares_the_host_and_the_last_one_removes_it(image: Image) -> None:
    host = Host("xen-of-tests-2", "xen", xen.Settings(made_from="xen-host"), Realness.EMULATED)

    with hosts.connect(host) as first, hosts.connect(host) as second:
        assert first.facts() == second.facts()
        assert first.facts().realness is Realness.EMULATED
        assert hosts.is_there(host)

    assert not hosts.is_there(host)
    assert not list((locations.state() / "machines" / made_host.DRIVER / host.name).glob("host*"))
