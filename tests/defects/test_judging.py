"""A defect counts as caught only when the right feature failed for the right reason, and nothing else cried out."""

from __future__ import annotations

from datetime import UTC, datetime

from lab.contracts import Realness
from lab.errors import Blame
from lab.results.record import Outcome, Record
from tests.defects.definition import Defect
from tests.defects.judging import judge

DEFECT = Defect(
    name="late",
    what="The clock is late.",
    breaks=("time.sync",),
    says="clock is -36",
    collateral={"boot.reboot": "it compares times"},
    script="true",
)


def record(
    feature: str, outcome: Outcome, *, blame: Blame = Blame.PRODUCT, reason: str = "the clock is -3600 s off"
) -> Record:
    return Record(
        run="run",
        cell="qemu/jeos/pc-bios",
        feature=feature,
        check=f"conformance/{feature}::test_it",
        attempt=1,
        outcome=outcome,
        blame=Blame.NOBODY if outcome is Outcome.PASSED else blame,
        reason="" if outcome is Outcome.PASSED else reason,
        realness=Realness.REAL,
        warm=True,
        started=datetime.now(UTC),
        seconds=1.0,
    )


def test_the_right_feature_failing_for_the_right_reason_is_caught() -> None:
    found = judge(DEFECT, [record("time.sync", Outcome.FAILED), record("boot.core", Outcome.PASSED)])

    assert found.word == "caught"
    assert found.caught == {"conformance/time.sync::test_it": "the clock is -3600 s off"}
    assert (found.judged, found.checks) == (2, 2)


def test_a_feature_that_passes_has_missed_it() -> None:
    found = judge(DEFECT, [record("time.sync", Outcome.PASSED)])

    assert (found.word, found.missed) == ("missed", ("time.sync",))


def test_a_feature_that_fails_for_another_reason_has_missed_it() -> None:
    found = judge(DEFECT, [record("time.sync", Outcome.FAILED, reason="no answer")])

    assert found.missed == ("time.sync",)


def test_a_check_that_breaks_has_missed_it_and_is_a_false_alarm() -> None:
    found = judge(DEFECT, [record("time.sync", Outcome.BROKEN, blame=Blame.SUITE)])

    assert found.missed == ("time.sync",)
    assert found.word == "false alarm"


def test_the_failure_of_another_feature_is_a_false_alarm() -> None:
    found = judge(DEFECT, [record("time.sync", Outcome.FAILED), record("net.jumbo", Outcome.FAILED)])

    assert found.false_alarms == {"conformance/net.jumbo::test_it": "failed, blame product: the clock is -3600 s off"}


def test_a_failure_that_the_definition_expects_is_no_alarm() -> None:
    found = judge(DEFECT, [record("time.sync", Outcome.FAILED), record("boot.reboot", Outcome.FAILED)])

    assert found.word == "caught"
    assert list(found.collateral) == ["conformance/boot.reboot::test_it"]


def test_a_failure_that_is_blamed_on_the_lab_has_missed_it() -> None:
    found = judge(DEFECT, [record("time.sync", Outcome.FAILED, blame=Blame.LAB)])

    assert found.missed == ("time.sync",)
