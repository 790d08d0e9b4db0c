"""Waiting has a limit and says what it waited for."""

import pytest

from lab import waiting
from lab.errors import WaitedTooLong


def test_the_first_true_answer_is_returned() -> None:
    answers = iter([None, "", "here"])

    assert waiting.until(lambda: next(answers), what="an answer", timeout_s=5.0) == "here"


def test_the_error_names_what_was_waited_for() -> None:
    with pytest.raises(WaitedTooLong, match=r"^waited \d+\.\d s for the machine to stop$"):
        waiting.until(lambda: None, what="the machine to stop", timeout_s=0.0)


def test_what_the_probe_raises_goes_through() -> None:
    def probe() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        waiting.until(probe, what="anything", timeout_s=1.0)
