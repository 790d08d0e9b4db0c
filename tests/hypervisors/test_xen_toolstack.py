"""What a host's toolstack is and can, read from `xl info`."""

from __future__ import annotations

import pytest

from lab.errors import HostError
from lab.hypervisors import _xen_toolstack as toolstacks
from lab.hypervisors._xen_toolstack import Can

INFO = """\
host                   : dom0
release                : 6.1.0-32-amd64
virt_caps              : {caps}
total_memory           : 2047
free_memory            : 1200
xen_major              : {major}
xen_minor              : {minor}
xen_extra              : .7
xen_version            : {major}.{minor}.7
xen_caps               : xen-3.0-x86_64 hvm-3.0-x86_64
"""


def _read(major: int = 4, minor: int = 17, caps: str = "pv hvm hap") -> toolstacks.Toolstack:
    return toolstacks.read(INFO.format(major=major, minor=minor, caps=caps), "host")


def test_version_and_abilities_are_told() -> None:
    found = _read()

    assert (found.version, found.full, found.free_mib) == ((4, 17), "4.17.7", 1200)
    assert found.capabilities == ("pv", "hvm", "hap")
    assert found.details["release"] == "6.1.0-32-amd64"
    assert found.is_known()


def test_an_older_xen_that_tells_no_abilities_tells_them_by_its_guests() -> None:
    assert _read(minor=4, caps="").capabilities == ("hvm", "pv")


@pytest.mark.parametrize("said", ["", "xl: command not found", "xen_major : four\nxen_minor : 1", "xen_major : 4"])
def test_a_toolstack_without_a_version_is_the_hosts_fault(said: str) -> None:
    with pytest.raises(HostError, match="host: xl info tells no version of Xen"):
        toolstacks.read(said, "host")


def test_a_xen_that_is_too_old_is_refused() -> None:
    with pytest.raises(HostError, match=r"host has Xen 4\.2\.7; the lab speaks to 4\.4 and later"):
        _read(minor=2)


def test_a_xen_that_is_newer_than_known_is_used_and_said_so() -> None:
    assert not _read(minor=21).is_known()
    assert _read(minor=21).can(Can.PVH)


@pytest.mark.parametrize("quirk", toolstacks.QUIRKS, ids=lambda quirk: quirk.what)
def test_a_quirk_begins_with_its_release_and_has_a_source(quirk: toolstacks.Quirk) -> None:
    major, minor = quirk.since

    assert _read(major, minor).can(quirk.what)
    assert _read(major, minor - 1).lacks(quirk.what) == quirk.lacks
    assert len(quirk.source.split()) > 3


def test_pvh_needs_the_processors_help() -> None:
    assert _read().runs_pvh() is None
    assert "no hardware virtualisation" in (_read(caps="pv").runs_pvh() or "")
    assert "4.10" in (_read(minor=9).runs_pvh() or "")


def test_a_xen_without_shadow_paging_moves_no_pv_domain() -> None:
    assert "no log of its dirty pages" in (_read().moves_no_pv() or "")
    assert _read(caps="pv hvm hap shadow").moves_no_pv() is None
