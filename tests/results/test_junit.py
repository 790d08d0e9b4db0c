"""JUnit XML of a run."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import junitparser
import pytest
from lxml import etree

from lab.results import junit
from lab.results.store import Run

SCHEMA = etree.XMLSchema(file=str(Path(__file__).parent / "junit.xsd"))
CELL = "tcg/debian-12/q35"


@pytest.fixture
def run(make: ModuleType, tmp_path: Path) -> Run:
    return Run.open(make.small_runs(tmp_path)[1])


def suites(run: Run) -> dict[str, junitparser.TestSuite]:
    return {suite.name: suite for suite in junitparser.JUnitXml.fromfile(str(junit.write(run)))}


def test_the_document_keeps_to_the_common_schema(run: Run) -> None:
    SCHEMA.assertValid(etree.parse(junit.write(run)))


def test_a_suite_for_each_cell_and_the_counts_agree(run: Run) -> None:
    found = suites(run)

    assert set(found) == {CELL, "uml/debian-12/pv", "simulated/debian-12/q35", "tcg/jeos/microvm"}
    emulated = found[CELL]
    assert (emulated.tests, emulated.failures, emulated.errors, emulated.skipped) == (12, 2, 2, 4)
    assert len(list(emulated)) == 12


def test_failures_are_the_products_and_errors_the_labs(run: Run) -> None:
    kinds: dict[str, set[str]] = {}
    for case in suites(run)[CELL]:
        for result in case.result:
            kinds.setdefault(type(result).__name__, set()).add(f"{result.type or ''} {result.message}".strip())

    assert kinds == {
        "Failure": {
            "failed.product ping -s 8972 lost 10 of 10 packets",
            "failed.product no TSO on eth0: tcp-segmentation-offload is off",
        },
        "Error": {"broken.lab QMP answered nothing within 10 s", "not_run.lab planned, and never run"},
        "Skipped": {
            "QEMU without KVM offers no paravirtual clock",
            "the machine vanished in the check before",
            "one processor only in this profile",
            "no GPU can be passed to an emulated machine",
        },
    }


def test_every_suite_says_its_realness_hypervisor_and_versions(run: Run) -> None:
    properties = {each.name: each.value for each in suites(run)[CELL].properties()}

    assert properties["realness"] == "emulated"
    assert properties["hypervisor"] == "QEMU"
    assert properties["hypervisor.version"] == "7.2.22"
    assert properties["guest.os.name"] == "Debian GNU/Linux 12 (bookworm)"
    assert properties["guest.kernel.release"] == "6.1.0-41-amd64"
    assert properties["lab.version"] == "0.1.0"


def test_a_retry_does_not_hide_the_failure(run: Run) -> None:
    cases = {case.classname: case for case in suites(run)["uml/debian-12/pv"]}

    flaky = cases["uml/debian-12/pv/net.pv_nic"]

    assert [type(result).__name__ for result in flaky.result] == ["Failure"]
    assert flaky.system_out == "flaky\nattempt 1: failed vec0 gave up\nattempt 2: passed"


def test_a_cell_that_was_never_started_is_an_error_of_the_lab(run: Run) -> None:
    (case,) = suites(run)["tcg/jeos/microvm"]

    assert [type(result).__name__ for result in case.result] == ["Error"]


def test_hostile_text_makes_a_document_that_can_be_read(make: ModuleType, tmp_path: Path) -> None:
    maker = make.RunMaker(tmp_path)
    hostile = 'a\x00\x08\x1b[31m"]]><x>&\ufffe\uffff\u202e\udc80\nnext line'
    facts = {"os": {"na\x00me": hostile}, "li\u0000st": [1]}
    maker.cell(CELL, {("boot.core", "x\x01::test_y"): make.result("failed", hostile)}, guest=facts)
    run = Run.open(maker.finish())

    document = etree.parse(junit.write(run))

    SCHEMA.assertValid(document)
    (failure,) = document.iter("failure")
    assert failure.text == 'a<00><08><1B>[31m"]]><x>&\ufffd\ufffd<U+202E>\\udc80\nnext line'


def test_a_run_without_a_cell_is_a_valid_document(make: ModuleType, tmp_path: Path) -> None:
    run = Run.open(make.RunMaker(tmp_path).finish())

    SCHEMA.assertValid(etree.parse(junit.write(run)))
