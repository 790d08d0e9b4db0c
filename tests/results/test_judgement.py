"""What records say about the product."""

from __future__ import annotations

from types import ModuleType

import pytest

from lab.errors import Blame
from lab.results.judgement import Judgement, of_attempts, of_record


@pytest.fixture
def record(make: ModuleType, tmp_path):
    maker = make.RunMaker(tmp_path)

    def of(outcome: str, blame: Blame | None = None, attempt: int = 1):
        return maker.record("a/b/c", "boot.core", "x", make.result(outcome, blame=blame), attempt=attempt)

    return of


@pytest.mark.parametrize(
    ("outcome", "judgement"),
    [
        ("passed", Judgement.PASSED),
        ("failed", Judgement.FAILED),
        ("unsupported", Judgement.UNSUPPORTED),
        ("not_applicable", Judgement.NOT_APPLICABLE),
        ("skipped", Judgement.UNJUDGED),
        ("blocked", Judgement.UNJUDGED),
        ("broken", Judgement.UNJUDGED),
    ],
)
def test_every_outcome_has_its_judgement(record, outcome: str, judgement: Judgement) -> None:
    assert of_record(record(outcome)) is judgement


@pytest.mark.parametrize("blame", [Blame.LAB, Blame.SUITE, Blame.CONFIGURATION])
def test_a_failure_that_is_not_the_products_fault_does_not_judge_it(record, blame: Blame) -> None:
    assert of_record(record("failed", blame)) is Judgement.UNJUDGED


@pytest.mark.parametrize("blame", [Blame.GUEST, Blame.HYPERVISOR, Blame.PRODUCT])
def test_a_failure_of_a_product_judges_it(record, blame: Blame) -> None:
    assert of_record(record("failed", blame)) is Judgement.FAILED


def test_a_retry_that_passes_does_not_hide_the_failure(record) -> None:
    found = of_attempts([record("failed"), record("passed", attempt=2)])

    assert found.judgement is Judgement.FAILED
    assert found.flaky
    assert found.decided_by.attempt == 1


def test_a_fault_of_the_lab_is_forgotten_when_a_retry_judges(record) -> None:
    found = of_attempts([record("broken"), record("passed", attempt=2)])

    assert found.judgement is Judgement.PASSED
    assert not found.flaky


def test_no_record_is_no_judgement() -> None:
    assert of_attempts([]).judgement is Judgement.UNJUDGED
    assert of_attempts([]).decided_by is None
