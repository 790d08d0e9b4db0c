"""The exit code: whose night it was."""

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from lab.contracts import Cell, Realness
from lab.errors import Blame, ExitCode
from lab.results import store
from lab.results.documents import CellDocument, KnownIssue, RunDocument
from lab.results.layout import RunLayout
from lab.results.record import Outcome, Record
from lab.runner import exit_code
from lab.runner.plan import Plan, PlannedCell

CELL = Cell("h", "g", "p")
RUN = "20260101-000000-0000"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def code(
    tmp_path: Path, *attempts: dict[str, Outcome], issues: tuple[KnownIssue, ...] = (), checks: tuple[str, ...] = ("a",)
) -> ExitCode:
    layout = RunLayout(tmp_path / RUN)
    layout.root.mkdir()
    document = RunDocument(run=RUN, started=NOW, inventory="i", command="lab run i", version="1")
    store.write_document(layout.run_json, document)
    for number, outcomes in enumerate(attempts, 1):
        files = layout.attempt(CELL, number)
        files.root.mkdir(parents=True)
        about = CellDocument(run=RUN, cell=CELL.name, attempt=number, realness=Realness.REAL, known_issues=list(issues))
        store.write_document(files.cell_json, about)
        for check, outcome in outcomes.items():
            record = Record(
                run=RUN,
                cell=CELL.name,
                feature="boot.core",
                check=check,
                attempt=number,
                outcome=outcome,
                blame=Blame.NOBODY,
                realness=Realness.REAL,
                warm=False,
                started=NOW,
                seconds=1.0,
            )
            store.RecordFile(files.records).append(record)
    plan = Plan(cells=(PlannedCell(CELL, Realness.REAL, checks, None),), estimate_s=1.0)
    return exit_code.of(store.Run.open(layout.root), plan)


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Outcome.PASSED, ExitCode.AS_EXPECTED),
        (Outcome.NOT_APPLICABLE, ExitCode.AS_EXPECTED),
        (Outcome.UNSUPPORTED, ExitCode.AS_EXPECTED),
        (Outcome.FAILED, ExitCode.PRODUCT_FAILED),
        (Outcome.BROKEN, ExitCode.LAB_AT_FAULT),
    ],
)
def test_one_record_decides(tmp_path: Path, outcome: Outcome, expected: ExitCode) -> None:
    assert code(tmp_path, {"a": outcome}) is expected


def test_a_planned_check_without_a_record_is_the_labs_fault(tmp_path: Path) -> None:
    assert code(tmp_path, {"a": Outcome.PASSED}, checks=("a", "b")) is ExitCode.LAB_AT_FAULT


def test_no_record_at_all_means_that_nothing_was_run(tmp_path: Path) -> None:
    assert code(tmp_path, {}) is ExitCode.NOTHING_RUN


def test_the_products_failure_outranks_the_labs_fault(tmp_path: Path) -> None:
    outcomes = {"a": Outcome.BROKEN, "b": Outcome.FAILED}

    assert code(tmp_path, outcomes, checks=("a", "b")) is ExitCode.PRODUCT_FAILED


def test_a_failure_that_a_known_issue_explains_is_as_expected(tmp_path: Path) -> None:
    issue = KnownIssue(cell="h/*", feature="boot.*", reason="bug 7", owner="kim", expires=date(2026, 2, 1))

    assert code(tmp_path, {"a": Outcome.FAILED}, issues=(issue,)) is ExitCode.AS_EXPECTED


def test_an_expired_known_issue_explains_nothing(tmp_path: Path) -> None:
    issue = KnownIssue(cell="h/*", feature="boot.*", reason="bug 7", owner="kim", expires=date(2025, 12, 31))

    assert code(tmp_path, {"a": Outcome.FAILED}, issues=(issue,)) is ExitCode.PRODUCT_FAILED


def test_a_retry_that_passes_does_not_hide_the_failure(tmp_path: Path) -> None:
    assert code(tmp_path, {"a": Outcome.FAILED}, {"a": Outcome.PASSED}) is ExitCode.PRODUCT_FAILED


def test_a_retry_makes_up_for_the_labs_own_fault(tmp_path: Path) -> None:
    assert code(tmp_path, {"a": Outcome.BROKEN}, {"a": Outcome.PASSED}) is ExitCode.AS_EXPECTED


def test_what_was_blocked_was_not_judged(tmp_path: Path) -> None:
    assert code(tmp_path, {"a": Outcome.BLOCKED}) is ExitCode.LAB_AT_FAULT


def test_a_check_that_somebody_chose_to_skip_is_as_expected(tmp_path: Path) -> None:
    assert code(tmp_path, {"a": Outcome.SKIPPED}) is ExitCode.AS_EXPECTED
