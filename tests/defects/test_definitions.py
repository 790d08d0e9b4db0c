"""Definitions of seeded defects are whole, name what the catalogue has, and know nothing of the checks."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from lab import catalogue as suites_catalogue
from lab.inventory.load import load
from tests.defects import sweep, table, trial
from tests.defects.catalogue import DEFECTS, by_name
from tests.defects.definition import Defect, replace_method
from tests.defects.kernel_modules import unsigned
from tests.defects.wrapper import bent

HERE = Path(__file__).parent
KNOWN = suites_catalogue.load(trial.ROOT / "suites")
SEEDING = (
    "agents",
    "boots",
    "catalogue",
    "definition",
    "drivers",
    "guests",
    "hardware",
    "kernel_modules",
    "moves",
    "on_xen",
    "qemu_line",
    "traffic",
    "wrapper",
)

each = pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)


def test_there_are_at_least_forty_and_each_has_its_own_name() -> None:
    assert len(DEFECTS) >= 40
    assert [name for name, count in Counter(defect.name for defect in DEFECTS).items() if count > 1] == []


@each
def test_a_defect_brings_down_features_of_the_catalogue_or_says_why_none_could_notice(defect: Defect) -> None:
    assert {*defect.breaks, *defect.collateral} <= KNOWN.by_id.keys()
    assert bool(defect.breaks) != bool(defect.nobody)
    assert not set(defect.breaks) & set(defect.collateral)


@each
def test_a_defect_says_what_a_true_reason_contains(defect: Defect) -> None:
    assert bool(defect.says) == bool(defect.breaks)
    assert re.compile(defect.says).search("") is None or not defect.breaks


@each
def test_a_defect_is_made_in_some_way_and_says_what_is_wrong(defect: Defect) -> None:
    assert defect.way
    assert defect.what.endswith(".")
    assert re.fullmatch(r"[a-z0-9-]+", defect.name)


@each
def test_a_defect_lies_in_a_cell_of_the_local_lab(defect: Defect) -> None:
    inventory = load(trial.INVENTORY)

    inventory.profile_of(defect.where)
    assert defect.where.host in inventory.hosts
    assert defect.line is None or inventory.hosts[defect.where.host].driver == "qemu"


@pytest.mark.parametrize("module", SEEDING)
def test_what_makes_defects_knows_no_check(module: str) -> None:
    text = (HERE / f"{module}.py").read_text()
    named = [check.id for check in KNOWN.checks if check.id.rpartition("::")[2] in text]

    assert named == []
    assert re.findall(r"^\s*(?:from|import) (?:suites|lab\.checking|lab\.suite|lab\.catalogue)\b", text, re.M) == []


def test_the_page_is_what_the_results_say() -> None:
    assert table.PAGE.read_text() == table.page()
    assert sweep.read_results().keys() <= {defect.name for defect in DEFECTS}


def test_a_command_line_that_a_defect_leaves_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="found nothing to change"):
        bent(by_name("half-the-memory").line, ["-m", "256M"])


def test_a_method_that_is_not_there_cannot_be_bent() -> None:
    with pytest.raises(AttributeError):
        replace_method(object(), "pause", print)


def test_a_signature_is_cut_off_a_module() -> None:
    signature = b"s" * 5
    tail = signature + bytes(8) + (5).to_bytes(4) + b"~Module signature appended~\n"

    assert unsigned(b"code" + tail) == b"code"
    assert unsigned(b"code") == b"code"


def test_a_check_that_claims_a_seeded_defect_was_turned_red_by_one() -> None:
    claiming = {check.id for check in KNOWN.checks if check.defect}
    red = {check for result in sweep.read_results().values() for check in result.caught}

    assert sorted(claiming - red) == []


def test_a_check_that_a_seeded_defect_turned_red_claims_one() -> None:
    red = {check for result in sweep.read_results().values() for check in result.caught}
    silent = {check.id for check in KNOWN.checks if not check.defect}

    assert sorted(red & silent) == []
