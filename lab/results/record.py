"""A record: one check in one cell, one attempt; and the outcomes it can have, worst last."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from lab.contracts import Realness
from lab.errors import Blame

SCHEMA: Literal[1] = 1
LONGEST_REASON = 4000  # characters; a reason may quote a hostile guest


def bounded(text: str) -> str:
    """Text that fits into a line of a file of ours: at most `LONGEST_REASON` characters, all of them encodable."""
    text = text.encode(errors="backslashreplace").decode()
    if len(text) <= LONGEST_REASON:
        return text
    kept = text[: LONGEST_REASON - 40]
    return f"{kept}... ({len(text) - len(kept)} more characters)"


# Bounded and encodable whatever a guest said.
Reason = Annotated[str, AfterValidator(bounded)]
Number = Annotated[float, Field(allow_inf_nan=False)]  # JSON has neither


class FileModel(BaseModel):
    """Data in a file of ours: frozen, strict, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)


class Outcome(StrEnum):
    """Of a record; the order is the order of badness, worst last."""

    NOT_APPLICABLE = "not_applicable"  # this pair cannot have the feature, with the reason
    SKIPPED = "skipped"  # we chose not to
    PASSED = "passed"  # what the check looked for is so
    UNSUPPORTED = "unsupported"  # the host or the guest says that it cannot
    BLOCKED = "blocked"  # a prerequisite failed
    BROKEN = "broken"  # the lab's fault
    FAILED = "failed"  # the product's fault

    @property
    def badness(self) -> int:
        return _ORDER.index(self)


_ORDER = tuple(Outcome)


def worst(outcomes: Iterable[Outcome]) -> Outcome | None:
    """The worst of some outcomes; `None` of none: no data is a state of its own."""
    return max(outcomes, key=lambda outcome: outcome.badness, default=None)


class Measure(FileModel):
    """A number that a check took."""

    value: Number
    unit: str  # "s", "ms", "MiB/s", "ppm" ...
    better: Literal["higher", "lower", "none"]  # the direction that is better


class Record(FileModel):
    """One line of `records.jsonl`; the keys are an interface (docs/reference/record.md)."""

    # "schema" would hide an attribute of pydantic's own.
    schema_version: Literal[1] = Field(default=SCHEMA, alias="schema")
    run: str  # its id
    cell: str  # "host/guest/profile"
    feature: str  # of the catalogue
    check: str  # pytest's node id below suites/
    attempt: int  # from 1
    outcome: Outcome
    blame: Blame  # whose fault it is
    reason: Reason = ""  # one sentence
    realness: Realness  # what stood behind it
    warm: bool  # the machine was a restored copy, not booted for this cell
    started: datetime  # aware, UTC
    seconds: Number  # that the check took
    measured: dict[str, Measure] = {}  # numbers that the check took, by name
    evidence: tuple[Reason, ...] = ()  # paths below the run directory

    def line(self) -> str:
        """The record as one line of JSON, without its newline."""
        return self.model_dump_json(by_alias=True)

    @staticmethod
    def parse(line: str | bytes) -> Record:
        """The record of one line. Raises `pydantic.ValidationError`."""
        return Record.model_validate_json(line)


_OF_DRIVERS = "driver/"


def is_of_driver(check: str) -> bool:
    """Whether a check is a test of the contract for drivers ("driver/snapshots::test_..."), not one of a suite."""
    return check.startswith(_OF_DRIVERS) and ".py::" not in check


def feature_of_driver(check: str) -> str:
    """The feature that such a test belongs to, also one that the contract does not hold any more."""
    return f"driver.{check.removeprefix(_OF_DRIVERS).partition('::')[0]}"
