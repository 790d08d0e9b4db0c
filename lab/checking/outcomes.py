"""From an exception to an outcome with its blame: the one place that decides whose fault it was."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lab.errors import (
    Blame,
    CommandTimedOut,
    GuestCommandFailed,
    GuestError,
    GuestRebooted,
    LabDiskFull,
    LabError,
    MachineVanished,
    NotSupported,
    WaitedTooLong,
)
from lab.results.record import Outcome

LONGEST_REASON = 2000  # characters

_PRODUCTS_FAULT = frozenset({Blame.GUEST, Blame.HYPERVISOR, Blame.PRODUCT})
_GUEST_GOES_ON = (CommandTimedOut, GuestCommandFailed, GuestRebooted)


class NotApplicable(Exception):
    """This pair cannot have the feature."""


class Blocked(Exception):
    """A prerequisite failed; `blame` is that of the prerequisite."""

    def __init__(self, reason: str, *, blame: Blame = Blame.NOBODY) -> None:
        super().__init__(reason)
        self.blame = blame


class CheckTimedOut(Exception):
    """A check ran longer than its limit; every wait inside has its own, so the check is wrong."""


@dataclass(frozen=True)
class Judgement:
    """What one exception (or none) means for the record and for the cell."""

    outcome: Outcome
    blame: Blame = Blame.NOBODY
    reason: str = ""
    stops_cell: bool = False  # nothing that follows could be judged


PASSED = Judgement(Outcome.PASSED)


def judge(error: BaseException, *, in_check: bool) -> Judgement:
    """What an exception means; `in_check` is false for what was raised while the guest was brought up."""
    reason = readable(str(error) or type(error).__name__)
    kind = type(error).__name__
    match error:
        case NotApplicable():
            return Judgement(Outcome.NOT_APPLICABLE, reason=reason)
        case Blocked(blame=blame):
            return Judgement(Outcome.BLOCKED, blame, reason)
        case NotSupported():
            return Judgement(Outcome.UNSUPPORTED, reason=reason)
        case CheckTimedOut():
            return Judgement(Outcome.BROKEN, Blame.SUITE, reason)
        case WaitedTooLong() if in_check:
            # The check waited for something that guest or hypervisor had to do.
            return Judgement(Outcome.FAILED, Blame.PRODUCT, reason)
        case LabError():
            return _judge_lab_error(error, f"{kind}: {reason}", in_check=in_check)
        case AssertionError() if in_check:
            return Judgement(Outcome.FAILED, Blame.PRODUCT, readable(_said(str(error))))
    # pytest's own outcomes derive from BaseException and are told by name, to not import pytest here.
    if kind == "Skipped":
        return Judgement(Outcome.SKIPPED, reason=reason)
    if kind == "Failed" and in_check:
        return Judgement(Outcome.FAILED, Blame.PRODUCT, reason)
    # Any other exception is a bug of the check, and that is never the product's fault.
    return Judgement(Outcome.BROKEN, Blame.SUITE, readable(f"{kind}: {error}"))


def judge_on_emulated_virtualisation(error: BaseException, *, in_check: bool) -> Judgement:
    """As `judge`, where the processor's extension for virtual machines is itself emulated.

    QEMU's emulation of it has lost guests by itself: triple faults with the host's state in the guest. A guest that is
    lost there proves nothing about the product.
    """
    judgement = judge(error, in_check=in_check)
    lost = judgement.stops_cell or isinstance(error, GuestRebooted)
    if judgement.outcome is not Outcome.FAILED or not lost:
        return judgement
    reason = readable(f"lost on emulated virtualisation, which loses guests by itself: {judgement.reason}")
    return replace(judgement, outcome=Outcome.BROKEN, blame=Blame.LAB, reason=reason)


def _judge_lab_error(error: LabError, reason: str, *, in_check: bool) -> Judgement:
    # Whether a hypervisor that cannot even make a machine, or loses one, is at fault, or the machine it runs on, is
    # not proved by that; what it refuses a machine that runs is its own.
    not_judged = not isinstance(error, GuestError) and (not in_check or isinstance(error, MachineVanished))
    outcome = Outcome.FAILED if error.blame in _PRODUCTS_FAULT and not not_judged else Outcome.BROKEN
    guest_is_lost = isinstance(error, GuestError) and not isinstance(error, _GUEST_GOES_ON)
    stops = not in_check or guest_is_lost or isinstance(error, MachineVanished | LabDiskFull)
    return Judgement(outcome, error.blame, readable(reason), stops)


def _said(message: str) -> str:
    """An assertion's own message; what pytest adds behind it (the values compared) is in the evidence."""
    said = message.partition("\nassert ")[0]
    return said.strip() or "an assertion without a message"


def readable(text: str) -> str:
    """Text for a reason: one line, bounded, every character printable; a guest may have written it."""
    lines = " | ".join(line.strip() for line in text.splitlines() if line.strip())
    shown = "".join(char if char.isprintable() else _escaped(char) for char in lines[: LONGEST_REASON + 1])
    return shown if len(shown) <= LONGEST_REASON else shown[: LONGEST_REASON - 3] + "..."


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
