"""What a qualification makes of the contract: its catalogue, and whose fault an exception is."""

from __future__ import annotations

import pytest

from lab import catalogue
from lab.checking.outcomes import CheckTimedOut, NotApplicable
from lab.errors import Blame, HypervisorRefused, ImageError, LabDiskFull, NotSupported, WaitedTooLong
from lab.results.record import Outcome, feature_of_driver, is_of_driver
from lab.testing import contract, qualification
from lab.testing.hypervisor import HypervisorContract


def test_every_test_of_the_contract_is_a_check_of_a_feature_of_a_driver() -> None:
    made = qualification.catalogue()

    assert len(made.checks) == len(list(contract.contract_tests(HypervisorContract)))
    for check in made.checks:
        assert is_of_driver(check.id)
        assert feature_of_driver(check.id) == check.feature
        assert check.feature in made.by_id


def test_no_check_of_a_suite_is_taken_for_one_of_a_driver() -> None:
    assert not is_of_driver("driver/boot/test_core.py::test_x")
    assert not is_of_driver("conformance/boot/test_core.py::test_x")


def test_a_site_shows_both_kinds() -> None:
    suites = catalogue.Catalogue((), ())

    both = qualification.with_contract(suites)

    assert both.by_id["driver.snapshots"].area == "Driver"


@pytest.mark.parametrize(
    ("error", "outcome", "blame"),
    [
        (AssertionError("x"), Outcome.FAILED, Blame.PRODUCT),
        (HypervisorRefused("no"), Outcome.FAILED, Blame.PRODUCT),
        (WaitedTooLong("x"), Outcome.FAILED, Blame.PRODUCT),
        (CheckTimedOut("x"), Outcome.FAILED, Blame.PRODUCT),
        (TypeError("a bug of the driver"), Outcome.FAILED, Blame.PRODUCT),
        (NotSupported("no guest"), Outcome.UNSUPPORTED, Blame.NOBODY),
        (contract.HostRefuses("no display"), Outcome.UNSUPPORTED, Blame.NOBODY),
        (contract.DriverLacks("no method"), Outcome.NOT_APPLICABLE, Blame.NOBODY),
        (NotApplicable("x"), Outcome.NOT_APPLICABLE, Blame.NOBODY),
        (LabDiskFull("x"), Outcome.BROKEN, Blame.LAB),
        (ImageError("x"), Outcome.BROKEN, Blame.LAB),
    ],
)
@pytest.mark.parametrize("in_check", [True, False])
def test_whatever_a_driver_raises_is_its_failure_but_the_labs_own_faults(
    error: BaseException, outcome: Outcome, blame: Blame, in_check: bool
) -> None:
    judgement = qualification.judge(error, in_check=in_check)

    assert (judgement.outcome, judgement.blame) == (outcome, blame)
    assert judgement.stops_cell == isinstance(error, LabDiskFull)


def test_an_assertion_without_a_message_shows_itself() -> None:
    def check(number: int) -> None:
        assert number == 2

    with pytest.raises(AssertionError) as caught:
        check(1)
    bare = AssertionError().with_traceback(caught.value.__traceback__)

    assert qualification.judge(bare, in_check=True).reason == "does not hold: assert number == 2"


def test_a_test_that_says_not_what_it_proves_is_named() -> None:
    class Unmarked:
        def test_something(self) -> None: ...

    with pytest.raises(ValueError, match="test_something does not say what it proves"):
        list(contract.contract_tests(Unmarked))
    with pytest.raises(ValueError, match=r"'driver\.all' is neither a capability nor one of"):
        contract.proves("driver.all")
