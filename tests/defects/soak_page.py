"""The page that says how often guests without defect were run, with which checks, and what failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tests.defects import soak, trial
from tests.defects.findings import LIMITS, cause
from tests.defects.soak import Round

PAGE = trial.ROOT / "docs" / "reference" / "soak.md"

_SCOPES = {"smoke": "Smoke checks", "all": "All conformance checks"}


def page(rounds: Sequence[Round]) -> str:
    """The whole page."""
    lines = [
        "# Guests without defect",
        "",
        "<!-- Written by `python -m tests.defects table` from tests/defects/soak.jsonl. Do not change it here. -->",
        "",
        "No check may fail in a guest that has no [seeded defect](defects.md).",
        "A round runs the checks of one cell of `inventories/local` in a new copy of its guest, as a run does.",
        "*Clean* is a round in which checks passed and nothing failed, broke or was left out for a fault.",
        "*Passed* counts the checks of all rounds together; the rest are not for that hardware or that hypervisor.",
        "*Known* are failures that the inventory's known issues name.",
        "",
        "`python -m tests.defects soak --checks smoke` goes on where it ended, `--checks all` runs every check,",
        "which takes a quarter of an hour a round under emulation. A failed round stays in the table after its cause",
        "is mended.",
    ]
    for scope in soak.SCOPES:
        lines += ["", f"## {_SCOPES[scope]}", "", *_table([done for done in rounds if done.scope == scope], scope)]
    lines += ["", "## What failed", "", *_failures(rounds)]
    lines += ["", "## On a machine without time to spare", "", *(f"- {limit}" for limit in LIMITS)]
    return "\n".join(lines) + "\n"


def _table(rounds: Sequence[Round], scope: str) -> list[str]:
    lines = ["| cell | rounds | clean | passed | failed | known | seconds a round |", "|---|---|---|---|---|---|---|"]
    ran = dict.fromkeys([*soak.cells("*", scope), *(done.cell for done in rounds)])
    total = Counter[str]()
    for cell in ran:
        every = [done for done in rounds if done.cell == cell]
        counts = Counter(
            rounds=len(every),
            clean=sum(done.clean for done in every),
            passed=sum(done.outcomes.get("passed", 0) for done in every),
            failed=sum(len(done.failures) for done in every),
            known=sum(len(done.known) for done in every),
        )
        total.update(counts)
        took = sorted(done.seconds for done in every)
        lines.append(f"| `{cell}` | {_numbers(counts)} | {f'{took[len(took) // 2]:.0f}' if took else ''} |")
    lines.append(f"| **all** | {_numbers(total)} | |")
    return [*lines, "", _when(rounds)] if rounds else ["None so far."]


def _numbers(counts: Counter[str]) -> str:
    return " | ".join(str(counts[name]) for name in ("rounds", "clean", "passed", "failed", "known"))


def _when(rounds: Sequence[Round]) -> str:
    first, last = min(done.at for done in rounds), max(done.at for done in rounds)
    loads = sorted(done.load for done in rounds if done.load is not None)
    told = f"Ended between {first} and {last}."
    if loads:
        told += (
            f" The machine had two processors, and when a round ended {loads[0]} to {loads[-1]} processes wanted them"
            f" (mean of a minute; median {loads[len(loads) // 2]})."
        )
    return told


def _failures(rounds: Sequence[Round]) -> list[str]:
    same: dict[tuple[str, ...], list[str]] = {}
    for done in rounds:
        for check, reason in done.failures.items():
            short = check.rpartition("::")[2]
            told = " ".join(reason.split()).replace("`", "'")
            why = cause(done.revision, check, reason) or "**Not explained yet.**"
            same.setdefault((done.cell, done.scope, done.revision, short, told[:300], why), []).append(str(done.number))
    lines = [
        f"- `{cell}`, {scope}, round {', '.join(numbers)}, revision {revision}, `{check}`: `{told}` {why}"
        for (cell, scope, revision, check, told, why), numbers in same.items()
    ]
    return lines or ["Nothing."]
