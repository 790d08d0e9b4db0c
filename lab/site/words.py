"""How the pages say things: for every state a symbol, a word and a tone (never a colour alone); ages and spans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from lab.contracts import Realness
from lab.results.diff import Change
from lab.results.record import Outcome
from lab.results.statements import Expected
from lab.results.verdicts import Observed, Word

TONES = ("good", "bad", "warn", "lab", "quiet", "none")


@dataclass(frozen=True)
class Mark:
    """How one state is shown. Symbol and word differ between states of one tone, so no state rests on its colour."""

    symbol: str
    word: str
    tone: str  # a class of the style sheet, one of `TONES`
    meaning: str  # one sentence for the legend


NOT_RUN = Mark("○", "not run", "lab", "Planned in the run, and there is no record of it.")
NO_DATA = Mark("·", "no data", "none", "Nothing was seen: no check exists yet, or none was planned here.")
RUNNING = Mark("…", "unfinished", "lab", "The attempt never ended: it still runs, or it was killed.")

OUTCOMES: Mapping[Outcome, Mark] = {
    Outcome.PASSED: Mark("✓", "passed", "good", "The product did what the check asks for."),
    Outcome.FAILED: Mark("✕", "failed", "bad", "The product's fault: guest or hypervisor did not do it."),
    Outcome.BROKEN: Mark("!", "lab fault", "lab", "The lab's own fault; it says nothing of the product."),
    Outcome.BLOCKED: Mark("⊘", "blocked", "lab", "A prerequisite failed, so the check could not judge."),
    Outcome.UNSUPPORTED: Mark("⊖", "unsupported", "warn", "Host or guest says itself that it cannot."),
    Outcome.SKIPPED: Mark("»", "skipped", "quiet", "Left out on purpose."),
    Outcome.NOT_APPLICABLE: Mark("–", "not applicable", "quiet", "This pair cannot have the feature at all."),
}

OBSERVED: Mapping[Observed, Mark] = {
    Observed.WORKS: Mark("✓", "works", "good", "Every check that judged it passed."),
    Observed.PARTIAL: Mark("±", "partial", "warn", "Some of it works, or all of it only sometimes."),
    Observed.BROKEN: Mark("✕", "broken", "bad", "It does not work."),
    Observed.UNKNOWN: Mark("?", "unknown", "lab", "It was tried or planned, and nothing can be said of the product."),
    Observed.NOT_APPLICABLE: Mark("–", "n/a", "quiet", "The pair cannot have it, or says itself that it cannot."),
}

EXPECTED: Mapping[Expected, Mark] = {
    Expected.SUPPORTED: Mark("✓", "supported", "good", "A vendor states that it is supported."),
    Expected.LIMITED: Mark("±", "limited", "warn", "A vendor states that it is supported with limits."),
    Expected.UNSUPPORTED: Mark("⊖", "unsupported", "warn", "A vendor states that it is not supported."),
    Expected.UNKNOWN: Mark("·", "nothing stated", "none", "No vendor's statement about this pair is known."),
}

VERDICTS: Mapping[Word, Mark] = {
    Word.REGRESSION: Mark("▼", "regression", "bad", "It worked in the run before, and does not any more."),
    Word.BROKEN_CLAIM: Mark("✕", "broken claim", "bad", "A vendor states that it is supported, and it fails."),
    Word.UNDOCUMENTED_FAILURE: Mark("×", "fails, no claim", "bad", "It fails, and no vendor states that it works."),
    Word.CONFLICT: Mark("⇄", "sources disagree", "warn", "Two vendors' statements contradict each other."),
    Word.DOCUMENTED_GAP: Mark("⊖", "documented gap", "warn", "It does not work, and a vendor or the product says so."),
    Word.UNTESTED_CLAIM: Mark("?", "untested claim", "lab", "A vendor states something, and nothing was seen."),
    Word.UNDOCUMENTED_PASS: Mark("+", "works, no claim", "good", "It works, and no vendor states that it does."),
    Word.CONFIRMED: Mark("✓", "confirmed", "good", "What was seen is what is stated."),
    Word.NOT_APPLICABLE: Mark("–", "not applicable", "quiet", "This pair cannot have the feature at all."),
    Word.NO_DATA: NO_DATA,
}

REALNESS: Mapping[Realness, Mark] = {
    Realness.REAL: Mark("●", "real", "real", "The hypervisor itself ran the guest."),
    Realness.EMULATED: Mark("◐", "emulated", "emulated", "The real hypervisor ran the guest on an emulated processor."),
    Realness.SIMULATED: Mark("◌", "simulated", "simulated", "A control plane without the real hypervisor behind it."),
}

CHANGES: Mapping[Change, Mark] = {
    Change.REGRESSED: Mark("▼", "regressed", "bad", "Passed before, does not any more."),
    Change.NEW_FAILURE: Mark("✕", "new failure", "bad", "Fails, and nothing was known before."),
    Change.STILL_FAILING: Mark("×", "still failing", "bad", "Failed before and fails."),
    Change.FIXED: Mark("▲", "fixed", "good", "Failed before, passes now."),
    Change.NEW_PASS: Mark("✓", "new pass", "good", "Passes, and could not be judged before."),
    Change.APPEARED: Mark("+", "appeared", "quiet", "Was not in the run before."),
    Change.DISAPPEARED: Mark("−", "disappeared", "quiet", "Is not in this run any more."),
}


def moment(when: datetime) -> str:
    """A time for people, in UTC."""
    return f"{when.astimezone(UTC).isoformat(' ', 'minutes')[:16]} UTC"


def age(when: datetime, now: datetime) -> str:
    """How old something is, in one unit: "3 h old"."""
    span = now - when
    for size, unit in ((timedelta(days=1), "day"), (timedelta(hours=1), "hour"), (timedelta(minutes=1), "minute")):
        count = span // size
        if count >= 1:
            return f"{count} {unit}{'' if count == 1 else 's'} old"
    return "just now"


def seconds(value: float) -> str:
    """A span with as many digits as matter."""
    if value < 10:
        return f"{value:.2f} s"
    if value < 120:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def number(value: float) -> str:
    """A measured number with at most four digits that matter, and no needless zeros."""
    return f"{value:,.0f}" if abs(value) >= 10000 else f"{value:.4g}"


def plural(count: int, noun: str) -> str:
    """`3 cells`, `1 cell`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def sentence(check: str) -> str:
    """A check's name as the sentence that it is: `test_disk_keeps_its_data` -> `disk keeps its data`."""
    return check.rpartition("::")[2].removeprefix("test_").replace("_", " ") or check
