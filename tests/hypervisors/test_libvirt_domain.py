"""Libvirt's domain XML: it fits libvirt's own schema for all hardware, and no value becomes markup."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from lxml import etree

from lab.contracts import Firmware, Image, MachineSpec, Owner, Profile
from lab.errors import HypervisorRefused
from lab.hypervisors import _libvirt_domain as domains
from lab.hypervisors import _libvirt_mark as marks
from lab.hypervisors import _libvirt_xml as xml
from lab.hypervisors import libvirt
from lab.hypervisors._libvirt_domain import Disk, Domain, Network
from lab.hypervisors._libvirt_mark import Mark

UUID = "11111111-2222-3333-4444-555555abcdef"
PLAIN = Profile("plain", Firmware.BIOS, "q35", "virtio", "virtio", 1, 256)
_SCHEMA = Path("/usr/share/libvirt/schemas/domain.rng")

HARDWARE = [
    PLAIN,
    replace(PLAIN, chipset="pc"),
    replace(PLAIN, disk="sata", nic="e1000e"),
    replace(PLAIN, disk="pvscsi", nic="vmxnet3"),
    replace(PLAIN, firmware=Firmware.UEFI, tpm=True),
    replace(PLAIN, vcpus=2, max_vcpus=4, max_memory_mib=1024),
]


def _domain(profile: Profile = PLAIN, **changes: object) -> Domain:
    image = Image("jeos", "sha256:" + "0" * 64, Path("/images/disk"), "raw", kernel_arguments="quiet")
    spec = MachineSpec("one", Owner("run", "host/guest/profile", 1, 2), image, profile)
    disks = (Disk("root", "/pool/root", "qcow2"), Disk("seed", "/pool/seed", "raw", is_read_only=True))
    made = Domain(Mark(spec, UUID, "me"), "qemu", disks, "/pool/console", "/pool/kernel", "/pool/initrd")
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def schema() -> etree.RelaxNG:
    return etree.RelaxNG(etree.parse(str(_SCHEMA)))


@pytest.mark.parametrize("profile", HARDWARE, ids=lambda it: f"{it.chipset}-{it.firmware}-{it.disk}-{it.nic}")
def test_what_is_written_fits_libvirts_schema(profile: Profile, schema: etree.RelaxNG) -> None:
    for network in (Network(), Network("network", "default"), Network("bridge", "br0")):
        for kind in ("qemu", "kvm"):
            document = etree.fromstring(domains.document(_domain(profile, network=network, kind=kind)))
            assert schema.validate(document), schema.error_log


def test_the_hardware_is_that_of_the_profile() -> None:
    root = xml.read(domains.document(_domain(replace(PLAIN, vcpus=2, max_vcpus=4, max_memory_mib=1024))))

    assert (root.get("type"), root.findtext("name"), root.findtext("uuid")) == ("qemu", "lab-one", UUID)
    assert (root.find("vcpu").get("current"), root.findtext("vcpu")) == ("2", "4")
    assert (root.findtext("memory"), root.findtext("maxMemory")) == ("256", "1024")
    assert root.findtext("os/cmdline") == "quiet root=/dev/vda rw console=tty0 console=ttyS0"
    assert [disk.findtext("serial") for disk in root.iterfind("devices/disk")] == ["lab-root", "lab-seed"]
    assert root.findtext("on_crash") == "preserve"
    assert root.find("devices/panic").get("model") == "isa"
    assert root.find("devices/interface/mac").get("address") == "52:54:00:ab:cd:ef"


def test_software_emulation_goes_without_what_qemu_emulates_with_faults() -> None:
    emulated, real = (xml.read(domains.document(_domain(kind=kind))) for kind in ("qemu", "kvm"))

    assert {one.get("name") for one in emulated.iterfind("cpu/feature[@policy='disable']")} >= {"avx", "xsave", "smap"}
    assert real.find("cpu").get("mode") == "host-passthrough"
    assert real.find("cpu/feature") is None


@pytest.mark.parametrize("nasty", ["</name><evil/>", "a & b", "]]>", '" onload="x', "<!ENTITY x>", "ä€𝄞"])
def test_a_value_stays_a_value(nasty: str) -> None:
    domain = _domain(disks=(Disk("root", f"/pool/{nasty}", "qcow2"),), kernel=nasty)

    root = xml.read(domains.document(domain))

    assert root.find("devices/disk/source").get("file") == f"/pool/{nasty}"
    assert root.findtext("os/kernel") == nasty
    assert root.find(".//evil") is None


@pytest.mark.parametrize("nasty", ["a\0b", "\x1b[2J", "\x08", "\ud800", "\ufffe"])
def test_a_value_that_no_xml_can_hold_is_refused(nasty: str) -> None:
    with pytest.raises(HypervisorRefused, match="cannot be written into XML"):
        domains.document(_domain(kernel=nasty))


def test_entities_of_a_host_are_not_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    document = f'<!DOCTYPE a [<!ENTITY x SYSTEM "file://{secret}">]><a>&x;</a>'

    assert "secret" not in (xml.read(document).text or "")


def test_what_is_no_xml_is_told() -> None:
    with pytest.raises(HypervisorRefused, match="libvirt's answer is no XML"):
        xml.read("<a>")


# ---------------------------------------------------------------------------------------------------------
# The mark


def test_a_mark_is_read_as_it_was_written() -> None:
    domain = _domain(replace(PLAIN, max_memory_mib=512))
    mark = replace(domain.mark, wanted="running", ports={22: 4711}, plugged=("a",), modules={"m": 128}, generation=2)

    again = marks.read(xml.text(marks.element(mark, in_domain=False)))

    assert again == mark


def test_a_mark_that_names_no_uuid_is_not_believed() -> None:
    mark = replace(_domain().mark, uuid="../../etc")

    with pytest.raises(ValueError, match=r"a mark names 'one' '\.\./\.\./etc'"):
        marks.read(xml.text(marks.element(mark)))


@pytest.mark.parametrize("name", ["../x", "", "-x", "a\nb", "a/b", "x" * 101])
def test_a_name_that_could_be_something_else_is_refused(name: str) -> None:
    with pytest.raises(HypervisorRefused, match="cannot be the name of a machine"):
        marks.domain_of(name)


# ---------------------------------------------------------------------------------------------------------
# What cannot be


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        (replace(PLAIN, disk="nvme"), "have no disk 'nvme' (they have virtio, sata, pvscsi)"),
        (replace(PLAIN, nic="vector"), "have no nic 'vector'"),
        (replace(PLAIN, chipset="xenpv"), "have no chipset 'xenpv'"),
        (replace(PLAIN, firmware=Firmware.UEFI, secure_boot=True), "have no secure boot"),
    ],
)
def test_hardware_that_cannot_be_made_is_refused_while_planning(profile: Profile, words: str) -> None:
    assert words in (libvirt.refuses(profile) or "")


def test_ordinary_hardware_is_not_refused() -> None:
    assert [libvirt.refuses(profile) for profile in HARDWARE] == [None] * len(HARDWARE)
