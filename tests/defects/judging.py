"""What the records of a trial say: was the defect caught for the right reason, and did anything else cry out?"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from lab.errors import Blame
from lab.results.record import Outcome, Record
from tests.defects.definition import Defect

BAD = (Outcome.FAILED, Outcome.BROKEN)
_PRODUCT = (Blame.PRODUCT, Blame.GUEST, Blame.HYPERVISOR)


@dataclass(frozen=True)
class Result:
    """What became of one defect."""

    defect: str
    caught: dict[str, str] = field(default_factory=dict)  # check: its reason
    missed: tuple[str, ...] = ()  # features that should have failed, for the right reason, and did not
    collateral: dict[str, str] = field(default_factory=dict)  # check: its reason, where the definition expects it
    false_alarms: dict[str, str] = field(default_factory=dict)  # check: outcome, blame and reason
    checks: int = 0  # how many were tried
    judged: int = 0  # how many of them passed or failed
    revision: str = ""  # of the repository
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(content: dict[str, Any]) -> Result:
        return Result(**{**content, "missed": tuple(content["missed"])})

    @property
    def caught_all(self) -> bool:
        """Whether every feature that had to fail did, for the right reason."""
        return bool(self.caught) and not self.missed

    @property
    def word(self) -> str:
        """ "caught", "missed" or "false alarm": the worst that is true."""
        if self.false_alarms:
            return "false alarm"
        return "caught" if self.caught_all else "missed"


def judge(defect: Defect, records: Iterable[Record]) -> Result:
    """Compare what failed with what had to."""
    every = tuple(records)
    bad = [record for record in every if record.outcome in BAD]
    right = {record.check: record for record in bad if _is_right(defect, record)}
    hit = {record.feature for record in right.values()}
    collateral, alarms = {}, {}
    for record in bad:
        if record.check in right:
            continue
        if record.feature in (*defect.collateral, *defect.breaks) and record.outcome is Outcome.FAILED:
            collateral[record.check] = record.reason
        else:
            alarms[record.check] = f"{record.outcome}, blame {record.blame}: {record.reason}"
    return Result(
        defect=defect.name,
        caught={check: record.reason for check, record in right.items()},
        missed=tuple(feature for feature in defect.breaks if feature not in hit),
        collateral=collateral,
        false_alarms=alarms,
        checks=len(every),
        judged=sum(record.outcome in (*BAD, Outcome.PASSED) for record in every),
    )


def _is_right(defect: Defect, record: Record) -> bool:
    """Whether that failure is the one meant: the feature, the product's fault, and the reason names it."""
    return (
        record.feature in defect.breaks
        and record.outcome is Outcome.FAILED
        and record.blame in _PRODUCT
        and re.search(defect.says, record.reason, re.IGNORECASE) is not None
    )
