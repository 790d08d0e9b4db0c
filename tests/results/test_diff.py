"""What changed between two runs."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from lab.contracts import Realness
from lab.results.diff import Change, as_json, classify, diff
from lab.results.judgement import Judgement
from lab.results.store import Run

CELL = "tcg/debian-12/q35"
P, F, U, N, X = (
    Judgement.PASSED,
    Judgement.FAILED,
    Judgement.UNSUPPORTED,
    Judgement.NOT_APPLICABLE,
    Judgement.UNJUDGED,
)


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        (P, F, Change.REGRESSED),
        (P, U, Change.REGRESSED),
        (F, P, Change.FIXED),
        (F, F, Change.STILL_FAILING),
        (X, F, Change.NEW_FAILURE),
        (U, F, Change.NEW_FAILURE),
        (N, F, Change.NEW_FAILURE),
        (None, F, Change.NEW_FAILURE),
        (X, P, Change.NEW_PASS),
        (U, P, Change.NEW_PASS),
        (N, P, Change.NEW_PASS),
        (None, P, Change.APPEARED),
        (None, X, Change.APPEARED),
        (None, U, Change.APPEARED),
        (P, None, Change.DISAPPEARED),
        (F, None, Change.DISAPPEARED),
        (X, None, Change.DISAPPEARED),
        (P, P, None),
        (P, X, None),
        (F, X, None),
        (F, U, None),
        (X, X, None),
        (U, U, None),
        (P, N, None),
        (None, None, None),
    ],
)
def test_every_change_is_in_the_class_that_the_table_says(
    before: Judgement | None, after: Judgement | None, change: Change | None
) -> None:
    assert classify(before, after) is change


def one_run(make: ModuleType, reports: Path, run: str, results: dict, **facts) -> Run:
    maker = make.RunMaker(reports, run)
    maker.planned(CELL, "real", facts.pop("planned", [check for _, check in results]))
    if results:
        maker.cell(CELL, results, **facts)
    return Run.open(maker.finish())


def test_all_seven_classes_are_told_in_both_directions(make: ModuleType, tmp_path: Path) -> None:
    boot, jumbo, vlan, smp = (make.check(name) for name in ("boot.core", "net.jumbo", "net.vlan", "cpu.smp"))
    a = one_run(
        make,
        tmp_path,
        "20261121-000000-aaaa",
        {
            boot: make.passed(),
            jumbo: make.result("failed", "x"),
            vlan: make.passed(),
        },
    )
    b = one_run(
        make,
        tmp_path,
        "20261122-000000-bbbb",
        {
            boot: make.result("failed", "y"),
            jumbo: make.passed(),
            smp: make.passed(),
        },
    )

    there, back = as_json(diff(a, b)), as_json(diff(b, a))

    def entry(key: tuple[str, str]) -> list[dict[str, str]]:
        return [{"cell": CELL, "feature": key[0], "check": key[1]}]

    assert there == {
        "regressed": entry(boot),
        "new_failure": [],
        "still_failing": [],
        "fixed": entry(jumbo),
        "new_pass": [],
        "appeared": entry(smp),
        "disappeared": entry(vlan),
    }
    assert (back["regressed"], back["fixed"]) == (there["fixed"], there["regressed"])
    assert (back["appeared"], back["disappeared"]) == (there["disappeared"], there["appeared"])


@pytest.mark.parametrize("fault", ["broken", "blocked", "skipped"])
def test_a_fault_of_the_lab_is_never_a_regression(make: ModuleType, tmp_path: Path, fault: str) -> None:
    boot = make.check("boot.core")
    a = one_run(make, tmp_path, "20261121-000000-aaaa", {boot: make.passed()})
    b = one_run(make, tmp_path, "20261122-000000-bbbb", {boot: make.result(fault, "the disk was full")})

    assert not any(as_json(diff(a, b)).values())


def test_a_planned_check_that_was_never_run_did_not_disappear(make: ModuleType, tmp_path: Path) -> None:
    boot, jumbo = make.check("boot.core"), make.check("net.jumbo")
    a = one_run(make, tmp_path, "20261121-000000-aaaa", {boot: make.passed(), jumbo: make.passed()})
    b = one_run(make, tmp_path, "20261122-000000-bbbb", {boot: make.passed()}, planned=[boot[1], jumbo[1]])

    assert not any(as_json(diff(a, b)).values())


def test_a_host_that_became_simulated_is_not_compared_with_what_it_was(make: ModuleType, tmp_path: Path) -> None:
    boot = make.check("boot.core")
    a = one_run(make, tmp_path, "20261121-000000-aaaa", {boot: make.passed()}, planned=[])
    b = one_run(make, tmp_path, "20261122-000000-bbbb", {boot: make.passed()}, planned=[], realness=Realness.SIMULATED)

    found = diff(a, b)

    assert len(found[Change.APPEARED]) == 1
    assert len(found[Change.DISAPPEARED]) == 1
    assert not found[Change.REGRESSED]


def test_a_failure_that_a_retry_passed_is_a_regression_all_the_same(make: ModuleType, tmp_path: Path) -> None:
    boot = make.check("boot.core")
    a = one_run(make, tmp_path, "20261121-000000-aaaa", {boot: make.passed()})
    maker = make.RunMaker(tmp_path, "20261122-000000-bbbb")
    maker.cell(CELL, {boot: make.result("failed", "x")})
    maker.cell(CELL, {boot: make.passed()}, attempt=2)

    found = diff(a, Run.open(maker.finish()))

    assert [entry.feature for entry in found[Change.REGRESSED]] == ["boot.core"]


def test_a_run_compared_with_itself_has_only_what_still_fails(make: ModuleType, tmp_path: Path) -> None:
    (_, path) = make.small_runs(tmp_path)
    run = Run.open(path)

    found = as_json(diff(run, run))

    assert {change for change, entries in found.items() if entries} == {"still_failing"}
