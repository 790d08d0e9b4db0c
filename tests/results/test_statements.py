"""What vendors state, and of which pairs."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from lab.errors import ConfigurationError
from lab.results import statements
from lab.results.documents import HostDocument
from lab.results.statements import Basis, Expected, PairKey, expectation
from lab.results.store import Run

FOLDER = Path(__file__).parents[2] / "inventories" / "statements"
SLES_ON_KVM = PairKey("kvm", "SLES 15.6", "sles", "15.4", "x86_64", "bios")
SLES_11_ON_HYPERV = PairKey("hyperv", "Windows Server 2019", "sles", "11.4", "x86_64", "uefi")

GOOD = """
schema: 1
vendor: ACME
sources:
  table: {title: Table, reference: "https://example.com/t", as_of: "2026"}
statements:
  - {hypervisor: [kvm], features: [boot.core, net.jumbo], says: supported, source: table}
"""


def load(tmp_path: Path, text: str) -> statements.Statements:
    (tmp_path / "acme.yaml").write_text(text)
    return statements.load(tmp_path)


def test_a_statement_about_several_features_is_one_for_each(tmp_path: Path) -> None:
    assert list(load(tmp_path, GOOD).features()) == ["boot.core", "net.jumbo"]


def test_a_folder_that_is_not_there_states_nothing(tmp_path: Path) -> None:
    assert len(statements.load(tmp_path / "none")) == 0


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("vendor: ACME", "vender: ACME", "vendor: Field required"),
        (
            "says: supported",
            "says: maybe",
            "statements.0.says: Input should be 'supported', 'limited' or 'unsupported'",
        ),
        ("source: table}", "source: tabel}", "statements.0.source: no source 'tabel'\n  -> known: table"),
        ("schema: 1", "schema: 2", "schema: Input should be 1"),
    ],
)
def test_a_mistake_in_a_file_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, GOOD.replace(old, new))

    assert str(caught.value) == f"{tmp_path / 'acme.yaml'}: {said}"


def test_yaml_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"acme\.yaml: while parsing"):
        load(tmp_path, "a: [")


def test_statements_about_kvm_say_nothing_of_software_emulation() -> None:
    book = statements.load(FOLDER)

    emulated = PairKey("qemu-tcg", "SLES 15.6", "sles", "15.4", "x86_64", "bios")

    assert book.about(SLES_ON_KVM)
    assert book.about(emulated) == {}


@pytest.mark.parametrize(
    "other",
    [
        PairKey("kvm", "Debian 12", "sles", "15.4", "x86_64", "bios"),
        PairKey("kvm", "", "sles", "15.4", "x86_64", "bios"),
    ],
    ids=["other host", "host not known"],
)
def test_statements_about_one_host_release_say_nothing_of_another(other: PairKey) -> None:
    assert statements.load(FOLDER).about(other) == {}


def test_a_statement_about_one_guest_release_says_nothing_of_another() -> None:
    newer = PairKey("kvm", "SLES 15.6", "sles", "16.0", "x86_64", "bios")

    found = statements.load(FOLDER).about(newer)

    assert "boot.core" not in found
    assert "net.hotplug" in found  # stated for every guest


def test_two_real_sources_that_disagree_are_both_found_and_expect_nothing() -> None:
    found = statements.load(FOLDER).about(SLES_11_ON_HYPERV)["firmware.uefi"]

    assert [(each.says, each.source.as_of[:10]) for each in found] == [
        (Expected.SUPPORTED, "2016-10-03"),
        (Expected.UNSUPPORTED, "2025-06-18"),
    ]
    assert expectation(found) == statements.Expectation(Expected.UNKNOWN, conflict=True)


def test_only_a_promise_makes_an_expectation(tmp_path: Path) -> None:
    key = PairKey("kvm", "", "debian", "12", "x86_64", "bios")
    text = GOOD.replace("source: table}", "source: table, basis: driver-database}")

    (found,) = load(tmp_path, text).about(key)["boot.core"]

    assert found.basis is Basis.DRIVER_DATABASE
    assert expectation([found]).expected is Expected.UNKNOWN


def test_nobody_states_anything_about_the_pairs_of_the_local_lab(make: ModuleType, tmp_path: Path) -> None:
    (path, _) = make.small_runs(tmp_path)
    book = statements.load(FOLDER)
    documents = [cell.last.document for cell in Run.open(path).cells()]

    assert [book.about(statements.pair_key(document)) for document in documents] == [{}, {}, {}]


@pytest.mark.parametrize(
    ("host", "hypervisor", "release"),
    [
        (HostDocument(product="QEMU", version="7.2", accelerator="tcg"), "qemu-tcg", ""),
        (HostDocument(product="QEMU", version="7.2"), "qemu-tcg", ""),
        (HostDocument(product="QEMU", accelerator="kvm", details={"os": "SLES 15.6"}), "kvm", "SLES 15.6"),
        (HostDocument(product="User-Mode Linux", version="6.1.42"), "uml", "6.1.42"),
        (HostDocument(product="VMware ESXi", version="8.0"), "vmware", "8.0"),
        (HostDocument(product="Some Thing", version="1"), "some-thing", "1"),
    ],
)
def test_the_key_of_a_pair_comes_from_what_really_ran(
    make: ModuleType, tmp_path: Path, host: HostDocument, hypervisor: str, release: str
) -> None:
    maker = make.RunMaker(tmp_path)
    maker.cell("a/b/c", {}, host=host)
    document = Run.open(maker.finish()).cells()[0].last.document

    key = statements.pair_key(document)

    assert (key.hypervisor, key.host_release) == (hypervisor, release)
    assert (key.guest, key.guest_release, key.arch, key.mode) == ("debian", "12", "x86_64", "bios")
