"""What commands show on a terminal: tables and short summaries, never markup from a guest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lab.errors import ExitCode
from lab.results.plain import visible

if TYPE_CHECKING:
    from lab.provisioning.prune import Leftover
    from lab.runner.by_hand import How, Spot
    from lab.runner.doctor import Finding
    from lab.runner.kept import Document
    from lab.runner.listing import Listing
    from lab.runner.plan import Plan
    from lab.runner.run import Run

_HEALTH = {"good": ("✓", "green"), "poor": ("~", "yellow"), "bad": ("✗", "red")}

_UP = {
    "already": "is up already, since {since}",
    "started": "is up: it was powered off and was started again",
    "restored": "is up: a restored copy of a machine that had booted",
    "booted": "is up: it was booted",
}

_WHEN = "%d %b %H:%M"

_WORDS = {
    ExitCode.AS_EXPECTED: "as expected",
    ExitCode.PRODUCT_FAILED: "the product failed",
    ExitCode.LAB_AT_FAULT: "the lab was at fault",
    ExitCode.NOTHING_RUN: "nothing was run",
    ExitCode.INTERRUPTED: "interrupted; everything was undone",
}


def _table(*columns: str, whole: int = 1) -> Table:
    """A table whose first columns are not wrapped: they name the row, and whoever wants to copy that needs it whole."""
    table = Table(box=box.SIMPLE, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=number < whole)
    return table


def _text(value: str, style: str = "") -> Text:
    """Text to show: guests, hosts and files of others say some of it, and a terminal obeys what it is shown."""
    return Text(visible(value), style=style)


def rows(console: Console, found: Sequence[Mapping[str, Any]]) -> None:
    """A table of equal objects."""
    if not found:
        console.print("nothing", highlight=False)
        return
    table = _table(*found[0])
    for row in found:
        table.add_row(*(_text(_cell_text(value)) for value in row.values()))
    console.print(table)


def facts(console: Console, found: Mapping[str, Any]) -> None:
    """One object, a line for each key."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for key, value in found.items():
        table.add_row(_text(key, style="bold"), _text(_cell_text(value)))
    console.print(table)


def _cell_text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "-" if value is None or value == "" else str(value)


def findings(console: Console, found: Sequence[Finding]) -> None:
    """What the doctor found, with the remedies."""
    table = _table("", "what", "found", "remedy", whole=2)
    for finding in found:
        symbol, style = _HEALTH[finding.health]
        table.add_row(
            _text(f"{symbol} {finding.health}", style=style),
            _text(finding.subject),
            _text(finding.found),
            _text(finding.remedy),
        )
    console.print(table)
    counts = Counter(str(finding.health) for finding in found)
    told = (("bad", "does not work"), ("poor", "works, slower or with less"))
    sentences = [f"{counts[health]} {health}: {meaning}." for health, meaning in told if counts[health]]
    console.print(" ".join(sentences) or "Everything that was looked at works.", highlight=False)


def plan(console: Console, made: Plan) -> None:
    """The cells of a plan, what is excluded and why."""
    table = _table("cell", "realness", "checks", "excluded because")
    for planned in made.cells:
        excluded = planned.excluded is not None
        table.add_row(
            _text(planned.cell.name, style="dim" if excluded else ""),
            _text(str(planned.realness)),
            _text("-" if excluded else str(len(planned.checks))),
            _text(planned.excluded or ""),
        )
    console.print(table)
    wanted = [planned for planned in made.cells if planned.excluded is None]
    checks = sum(len(planned.checks) for planned in wanted)
    left_out = len(made.cells) - len(wanted)
    console.print(
        f"{len(wanted)} cells, {checks} checks, {left_out} cells excluded; about {_duration(made.estimate_s)}. "
        "Nothing was started.",
        highlight=False,
    )


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 100 else f"{seconds / 60:.0f} minutes"


def diff(console: Console, found: Mapping[str, Sequence[Mapping[str, str]]]) -> None:
    """What changed, class by class."""
    for name, entries in found.items():
        console.print(_text(f"{name.replace('_', ' ')}: {len(entries)}", style="bold" if entries else "dim"))
        for entry in entries:
            console.print(_text(f"  {entry['cell']}  {entry['feature']}  {entry['check']}"), soft_wrap=True)


def verdicts(console: Console, found: Sequence[Mapping[str, Any]]) -> None:
    """Verdicts, those first that somebody must look at."""
    table = _table("cell", "feature", "verdict", "observed", "expected", "records", whole=2)
    for entry in found:
        marks = "".join(f" {mark}" for mark in ("flaky", "stale") if entry[mark])
        table.add_row(
            _text(entry["cell"]),
            _text(entry["feature"]),
            _text(entry["verdict"].replace("_", " ") + marks),
            _text(entry["observed"]),
            _text(entry["expected"]),
            _text(str(entry["records"])),
        )
    console.print(table)


def run_summary(console: Console, run: Run, code: ExitCode) -> None:
    """How a run ended, the failures by feature, and where everything lies."""
    from lab.results.record import Outcome
    from lab.results.store import Run as StoredRun
    from lab.runner.display import SYMBOLS

    stored = StoredRun.open(run.layout.root)
    records = stored.records()
    counts = Counter(record.outcome for record in records)
    console.print()
    for outcome in sorted(counts, key=lambda each: each.badness, reverse=True):
        symbol, style = SYMBOLS[outcome]
        console.print(_text(f"{symbol} {counts[outcome]:>4} {outcome.value.replace('_', ' ')}", style=style))
    failures = [record for record in records if record.outcome in (Outcome.FAILED, Outcome.BROKEN)]
    for record in failures[:20]:
        first = record.reason.splitlines()[0] if record.reason else ""
        line = _text(f"  {record.cell}  {record.feature}  ", style=SYMBOLS[record.outcome][1])
        line.append(visible(f"blame: {record.blame}. {first[:200]}"), style="default")
        console.print(line, soft_wrap=True)
    if len(failures) > 20:
        console.print(f"  and {len(failures) - 20} more; the site has them all", highlight=False)
    for problem in stored.problems()[:5]:
        console.print(_text(f"  {problem}", style="yellow"), soft_wrap=True)
    console.print(
        f"Exit {int(code)}: {_WORDS.get(code, str(code))}. Run: {run.layout.root}", highlight=False, soft_wrap=True
    )


def up(console: Console, at: Spot, document: Document, *, how: How) -> None:
    """That a cell is up, and what to do with it now."""
    since = document.since.astimezone().strftime(_WHEN)
    console.print(_text(f"{at.cell} {_UP[how].format(since=since)}"), soft_wrap=True)
    for said, name, more in (
        ("a shell", "ssh", ""),
        ("a command", "ssh", " -- uname -a"),
        ("its console", "console", " --follow"),
        ("put it away", "down", ""),
    ):
        console.print(_text(f"  {said + ':':<13}{at.command(name)}{more}"), soft_wrap=True)


def machines(console: Console, found: Listing) -> None:
    """The machines that are up now."""
    if found.machines:
        table = _table("cell", "state", "whose", "since", "MiB", "SSH on")
        for it in found.machines:
            since = "-" if it.since is None else it.since.astimezone().strftime(_WHEN)
            address = f"{it.endpoint.host}:{it.endpoint.port}" if it.endpoint else "-"
            table.add_row(*map(_text, (it.cell, it.state.value, it.whose, since, str(it.memory_mib), address)))
        console.print(table)
        for command in (it.command for it in found.machines if it.command):
            console.print(_text(command), soft_wrap=True)
    elif not found.problems:
        console.print("no machine is up; lab up INVENTORY CELL brings one up", highlight=False)
    for problem in found.problems:
        console.print(_text(problem, style="yellow"), soft_wrap=True)


def pruned(console: Console, found: Sequence[Leftover], *, dry_run: bool) -> None:
    """What went from the cache, or would go, and how much that is."""
    if found:
        table = _table("what", "why", "MiB")
        for it in found:
            table.add_row(_text(it.what), _text(it.why), _text(str(it.bytes_freed >> 20)))
        console.print(table)
    freed = sum(it.bytes_freed for it in found) >> 20
    said = f"{freed} MiB would be freed; nothing was removed." if dry_run else f"{freed} MiB were freed."
    console.print(said if found else "Everything in the cache is needed.", highlight=False)
