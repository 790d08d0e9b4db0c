"""What was seen beside what is stated."""

from __future__ import annotations

from datetime import date, timedelta
from itertools import product
from pathlib import Path
from types import ModuleType

import pytest

from lab.contracts import Realness
from lab.errors import Blame
from lab.results import verdicts
from lab.results.judgement import Judgement
from lab.results.statements import Basis, Entry, Expectation, Expected, Source, Statement, Statements
from lab.results.store import Run
from lab.results.verdicts import Observed, Verdict, Word, observe, weigh

CELL = "tcg/debian-12/q35"
P, F, U, N, X = (
    Judgement.PASSED,
    Judgement.FAILED,
    Judgement.UNSUPPORTED,
    Judgement.NOT_APPLICABLE,
    Judgement.UNJUDGED,
)


@pytest.mark.parametrize(
    ("judgements", "observed"),
    [
        ([P], Observed.WORKS),
        ([P, P], Observed.WORKS),
        ([P, N], Observed.WORKS),
        ([F], Observed.BROKEN),
        ([F, X], Observed.BROKEN),
        ([F, N], Observed.BROKEN),
        ([F, P], Observed.PARTIAL),
        ([F, P, X], Observed.PARTIAL),
        ([P, U], Observed.PARTIAL),
        ([P, X], Observed.UNKNOWN),
        ([X], Observed.UNKNOWN),
        ([], Observed.UNKNOWN),
        ([N], Observed.NOT_APPLICABLE),
        ([U], Observed.NOT_APPLICABLE),
        ([U, X], Observed.UNKNOWN),
    ],
)
def test_a_feature_is_rolled_up_worst_first(judgements: list[Judgement], observed: Observed) -> None:
    assert observe((judgement, False) for judgement in judgements) is observed
    assert observe((judgement, False) for judgement in reversed(judgements)) is observed


def test_a_flaky_check_is_partial() -> None:
    assert observe([(F, True)]) is Observed.PARTIAL


@pytest.mark.parametrize(
    ("observed", "expected", "word"),
    [
        (Observed.WORKS, Expected.SUPPORTED, Word.CONFIRMED),
        (Observed.WORKS, Expected.LIMITED, Word.CONFIRMED),
        (Observed.WORKS, Expected.UNSUPPORTED, Word.UNDOCUMENTED_PASS),
        (Observed.WORKS, Expected.UNKNOWN, Word.UNDOCUMENTED_PASS),
        (Observed.PARTIAL, Expected.SUPPORTED, Word.BROKEN_CLAIM),
        (Observed.PARTIAL, Expected.LIMITED, Word.CONFIRMED),
        (Observed.PARTIAL, Expected.UNSUPPORTED, Word.DOCUMENTED_GAP),
        (Observed.PARTIAL, Expected.UNKNOWN, Word.UNDOCUMENTED_FAILURE),
        (Observed.BROKEN, Expected.SUPPORTED, Word.BROKEN_CLAIM),
        (Observed.BROKEN, Expected.LIMITED, Word.BROKEN_CLAIM),
        (Observed.BROKEN, Expected.UNSUPPORTED, Word.DOCUMENTED_GAP),
        (Observed.BROKEN, Expected.UNKNOWN, Word.UNDOCUMENTED_FAILURE),
        (Observed.UNKNOWN, Expected.SUPPORTED, Word.UNTESTED_CLAIM),
        (Observed.UNKNOWN, Expected.LIMITED, Word.UNTESTED_CLAIM),
        (Observed.UNKNOWN, Expected.UNSUPPORTED, Word.UNTESTED_CLAIM),
        (Observed.UNKNOWN, Expected.UNKNOWN, Word.NO_DATA),
        (Observed.NOT_APPLICABLE, Expected.SUPPORTED, Word.NOT_APPLICABLE),
        (Observed.NOT_APPLICABLE, Expected.UNKNOWN, Word.NOT_APPLICABLE),
    ],
)
def test_seen_beside_stated_gives_the_word(observed: Observed, expected: Expected, word: Word) -> None:
    found = weigh(observed, Expectation(expected, conflict=False), refused=False, regressed=False)

    assert found is word


def test_every_pair_of_seen_and_stated_has_a_word() -> None:
    for observed, expected, refused, regressed in product(Observed, Expected, (False, True), (False, True)):
        weigh(observed, Expectation(expected, conflict=False), refused=refused, regressed=regressed)


def test_a_product_that_refuses_what_is_stated_breaks_the_claim() -> None:
    stated = Expectation(Expected.SUPPORTED, conflict=False)

    assert weigh(Observed.NOT_APPLICABLE, stated, refused=True, regressed=False) is Word.BROKEN_CLAIM


def test_a_product_that_refuses_what_nobody_states_documents_its_gap() -> None:
    stated = Expectation(Expected.UNKNOWN, conflict=False)

    assert weigh(Observed.NOT_APPLICABLE, stated, refused=True, regressed=False) is Word.DOCUMENTED_GAP


def test_sources_that_disagree_are_a_conflict_whatever_was_seen() -> None:
    disagree = Expectation(Expected.UNKNOWN, conflict=True)

    words = {weigh(observed, disagree, refused=False, regressed=False) for observed in Observed}

    assert words == {Word.CONFLICT}


def test_a_regression_is_said_before_a_conflict() -> None:
    disagree = Expectation(Expected.UNKNOWN, conflict=True)

    assert weigh(Observed.BROKEN, disagree, refused=False, regressed=True) is Word.REGRESSION


def make_run(make: ModuleType, reports: Path, day: int, *attempts: dict, **facts) -> Run:
    maker = make.RunMaker(reports, f"202611{day:02}-000000-aaaa")
    for number, results in enumerate(attempts, start=1):
        maker.cell(CELL, results, attempt=number, **facts)
    return Run.open(maker.finish())


def only(make: ModuleType, *runs: Run, **facts) -> Verdict:
    (verdict,) = verdicts.compute(runs, now=make.NOW, **facts)
    return verdict


def test_what_worked_before_and_fails_now_is_a_regression(make: ModuleType, tmp_path: Path) -> None:
    boot = make.check("boot.core")
    old = make_run(make, tmp_path, 20, {boot: make.passed()})
    new = make_run(make, tmp_path, 21, {boot: make.result("failed", "no root")})

    verdict = only(make, old, new)

    assert (verdict.observed, verdict.word, verdict.reason) == (Observed.BROKEN, Word.REGRESSION, "no root")


def test_what_failed_before_as_well_is_no_regression(make: ModuleType, tmp_path: Path) -> None:
    boot = make.check("boot.core")
    runs = [
        make_run(make, tmp_path, 19, {boot: make.passed()}),
        make_run(make, tmp_path, 20, {boot: make.result("failed")}),
        make_run(make, tmp_path, 21, {boot: make.result("failed")}),
    ]

    assert only(make, *runs).word is Word.UNDOCUMENTED_FAILURE


def test_a_night_in_which_the_lab_broke_keeps_the_observation_of_the_night_before(
    make: ModuleType, tmp_path: Path
) -> None:
    boot = make.check("boot.core")
    old = make_run(make, tmp_path, 20, {boot: make.passed()})
    new = make_run(make, tmp_path, 21, {boot: make.result("broken", "disk full")})

    verdict = only(make, old, new)

    assert verdict.observed is Observed.WORKS
    assert verdict.observed_at.day == 20


@pytest.mark.parametrize("outcome", ["broken", "blocked"])
def test_a_fault_of_the_lab_alone_leaves_the_feature_unknown(make: ModuleType, tmp_path: Path, outcome: str) -> None:
    run = make_run(make, tmp_path, 21, {make.check("boot.core"): make.result(outcome, "x")})

    verdict = only(make, run)

    assert (verdict.observed, verdict.word) == (Observed.UNKNOWN, Word.NO_DATA)


def test_a_failure_that_is_the_suites_fault_leaves_the_feature_unknown(make: ModuleType, tmp_path: Path) -> None:
    run = make_run(make, tmp_path, 21, {make.check("boot.core"): make.result("failed", "typo", Blame.SUITE)})

    assert only(make, run).observed is Observed.UNKNOWN


def test_all_attempts_are_kept_and_a_retry_makes_it_flaky(make: ModuleType, tmp_path: Path) -> None:
    boot = make.check("boot.core")
    run = make_run(make, tmp_path, 21, {boot: make.result("failed", "x")}, {boot: make.passed()})

    verdict = only(make, run)

    assert verdict.flaky
    assert verdict.observed is Observed.PARTIAL
    assert verdict.as_json()["records"] == 2


def test_records_of_different_realness_never_meet_in_a_verdict(make: ModuleType, tmp_path: Path) -> None:
    boot = make.check("boot.core")
    real = make_run(make, tmp_path, 20, {boot: make.result("failed", "x")}, realness=Realness.REAL)
    fake = make_run(make, tmp_path, 21, {boot: make.passed()}, realness=Realness.SIMULATED)

    found = verdicts.compute([real, fake], now=make.NOW)

    assert {(verdict.realness, verdict.observed) for verdict in found} == {
        (Realness.REAL, Observed.BROKEN),
        (Realness.SIMULATED, Observed.WORKS),
    }


def test_old_data_is_stale_and_says_so(make: ModuleType, tmp_path: Path) -> None:
    run = make_run(make, tmp_path, 1, {make.check("boot.core"): make.passed()})

    assert not only(make, run).stale
    assert only(make, run, stale_after=timedelta(days=20)).stale


def test_a_planned_check_that_was_never_run_leaves_its_feature_unknown(make: ModuleType, tmp_path: Path) -> None:
    ran, never = make.check("boot.core", "a"), make.check("boot.core", "b")
    maker = make.RunMaker(tmp_path)
    maker.planned(CELL, "real", [ran[1], never[1]])
    maker.cell(CELL, {ran: make.passed()})
    run = Run.open(maker.finish())

    verdict = only(make, run, features_of={ran[1]: "boot.core", never[1]: "boot.core"})

    assert verdict.observed is Observed.UNKNOWN
    assert [state.judged.decided_by is None for state in verdict.checks] == [False, True]


def test_a_record_of_a_check_that_no_longer_exists_decides_nothing(make: ModuleType, tmp_path: Path) -> None:
    ghost = make.check("boot.core", "renamed_since")
    run = make_run(make, tmp_path, 21, {ghost: make.result("failed")})

    assert verdicts.compute([run], now=make.NOW, features_of={"other": "boot.core"}) == []


def issue_run(make: ModuleType, reports: Path, **issue) -> Run:
    results = {
        make.check("net.jumbo", "a"): make.result("failed", "x"),
        make.check("net.jumbo", "b"): make.result("failed", "y"),
    }
    return make_run(make, reports, 21, results, known_issues=[make.known_issue(**issue)])


def test_a_known_issue_explains_a_failure_and_does_not_hide_it(make: ModuleType, tmp_path: Path) -> None:
    verdict = only(make, issue_run(make, tmp_path, cell="tcg/*", feature="net.*"))

    assert verdict.known_issue.reason == "TSO is off in this driver"
    assert verdict.observed is Observed.BROKEN


@pytest.mark.parametrize(
    "issue",
    [{"expires": date(2026, 11, 21)}, {"check": "*::test_a"}, {"feature": "boot.*"}, {"cell": "uml/*"}],
    ids=["expired", "explains one of two", "other feature", "other cell"],
)
def test_an_issue_that_does_not_explain_every_failure_explains_none(
    make: ModuleType, tmp_path: Path, issue: dict
) -> None:
    assert only(make, issue_run(make, tmp_path, **issue)).known_issue is None


def statement(says: Expected, feature: str = "boot.core", **about) -> Statement:
    entry = Entry(hypervisor=("qemu-tcg",), features=(feature,), says=says.value, source="s", **about)
    return Statement(
        "Vendor", feature, says, "", Basis.VENDOR_TABLE, Source(title="t", reference="r", as_of="d"), entry
    )


def test_a_statement_about_the_pair_is_weighed_and_listed(make: ModuleType, tmp_path: Path) -> None:
    run = make_run(make, tmp_path, 21, {make.check("boot.core"): make.result("failed", "x")})

    verdict = only(make, run, statements=Statements([statement(Expected.SUPPORTED)]))

    assert (verdict.expected, verdict.word) == (Expected.SUPPORTED, Word.BROKEN_CLAIM)
    assert verdict.as_json()["statements"][0]["vendor"] == "Vendor"


def test_a_statement_without_any_record_is_an_untested_claim(make: ModuleType, tmp_path: Path) -> None:
    run = make_run(make, tmp_path, 21, {make.check("boot.core"): make.passed()})

    found = verdicts.compute([run], now=make.NOW, statements=Statements([statement(Expected.SUPPORTED, "net.jumbo")]))

    assert {verdict.feature: verdict.word for verdict in found} == {
        "boot.core": Word.UNDOCUMENTED_PASS,
        "net.jumbo": Word.UNTESTED_CLAIM,
    }


def test_both_of_two_statements_that_disagree_are_listed(make: ModuleType, tmp_path: Path) -> None:
    run = make_run(make, tmp_path, 21, {make.check("boot.core"): make.passed()})
    both = Statements([statement(Expected.SUPPORTED), statement(Expected.UNSUPPORTED)])

    found = only(make, run, statements=both).as_json()

    assert found["verdict"] == "conflict"
    assert [each["says"] for each in found["statements"]] == ["supported", "unsupported"]


def test_the_keys_of_a_verdict_are_an_interface(make: ModuleType, tmp_path: Path) -> None:
    run = make_run(make, tmp_path, 21, {make.check("boot.core"): make.passed()})

    (found,) = verdicts.as_json([only(make, run)])

    wanted = {"cell", "feature", "observed", "expected", "verdict", "flaky", "stale", "known_issue", "records"}
    assert wanted | {"statements"} <= set(found)


def test_verdicts_are_chosen_by_cell_and_feature(make: ModuleType, tmp_path: Path) -> None:
    runs = [Run.open(path) for path in make.small_runs(tmp_path)]

    found = verdicts.of_runs(runs, cell="tcg/*", feature="net.*")

    assert [verdict.feature for verdict in found] == ["net.jumbo", "net.offload_tso_csum"]
