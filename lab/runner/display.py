"""The display of a run: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lab.contracts import Cell
from lab.results.record import Outcome
from lab.runner.work import CellResult, CellWork, Progress

SYMBOLS: Mapping[Outcome | None, tuple[str, str]] = {
    Outcome.NOT_APPLICABLE: ("-", "dim"),
    Outcome.SKIPPED: ("s", "dim"),
    Outcome.PASSED: ("✓", "green"),
    Outcome.UNSUPPORTED: ("u", "cyan"),
    Outcome.BLOCKED: ("b", "yellow"),
    Outcome.BROKEN: ("!", "magenta"),
    Outcome.FAILED: ("✗", "red"),
    None: ("?", "yellow"),
}


class Display(Protocol):
    """Shows a run while it goes on."""

    def __enter__(self) -> Display: ...
    def __exit__(
        self, kind: type[BaseException] | None, reason: BaseException | None, where: TracebackType | None
    ) -> None: ...
    def started(self, work: CellWork) -> None: ...
    def progress(self, progress: Progress) -> None: ...
    def finished(self, result: CellResult) -> None: ...
    def say(self, line: str) -> None: ...


def counts_text(counts: tuple[tuple[Outcome, int], ...]) -> str:
    """Outcomes in words, worst first: `1 failed, 30 passed`."""
    by_badness = sorted(counts, key=lambda pair: pair[0].badness, reverse=True)
    return ", ".join(f"{count} {outcome.value.replace('_', ' ')}" for outcome, count in by_badness)


def result_line(result: CellResult) -> Text:
    """One line about a finished cell; the reason is of hostile origin and shown as text only."""
    symbol, style = SYMBOLS[result.outcome]
    word = result.outcome.value if result.outcome else "no record"
    line = Text(f"{symbol} {word:<8} ", style=style)
    line.append(f"{result.cell}  {result.seconds:.1f} s", style="default")
    line.append(f"  {'warm' if result.warm else 'cold'}", style="dim")
    if result.counts:
        line.append(f"  {counts_text(result.counts)}", style="default")
    if result.reason and result.outcome in (Outcome.FAILED, Outcome.BROKEN, Outcome.BLOCKED):
        line.append(f"\n    blame: {result.blame}. {_one_line(result.reason)}", style="default")
    return line


def _one_line(text: str, limit: int = 240) -> str:
    flat = " ".join(text.split())
    printable = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in flat)
    return printable if len(printable) <= limit else printable[: limit - 1] + "…"


@dataclass
class PlainDisplay:
    """A line when a cell starts, when it enters a phase, when it ends; for CI and files."""

    console: Console
    total: int
    _done: int = 0

    def __enter__(self) -> PlainDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def started(self, work: CellWork) -> None:
        self._line(f"  start    {work.cell}")

    def progress(self, progress: Progress) -> None:
        if progress.done == 0:
            self._line(f"           {progress.cell}: {_one_line(progress.phase)}")

    def finished(self, result: CellResult) -> None:
        self._done += 1
        self._line(f"[{self._done}/{self.total}] {result_line(result).plain}")

    def say(self, line: str) -> None:
        self._line(line)

    def _line(self, line: str) -> None:
        # Without rich, which lays out even a plain line for a quarter of a millisecond.
        if not self.console.quiet:
            self.console.file.write(f"{line}\n")
            self.console.file.flush()


@dataclass
class _Row:
    work: CellWork
    phase: str
    since: float
    done: int = 0


@dataclass
class LiveDisplay:
    """One line per running cell (phase, checks done, elapsed); finished cells scroll above it."""

    console: Console
    total: int
    estimate_s: float
    clock: Callable[[], float] = time.monotonic
    _rows: dict[Cell, _Row] = field(default_factory=dict)
    _done: int = 0
    _begin: float = 0.0
    _live: Live | None = None

    def __enter__(self) -> LiveDisplay:
        self._begin = self.clock()
        self._live = Live(get_renderable=self._shown, console=self.console, refresh_per_second=4, transient=True)
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def started(self, work: CellWork) -> None:
        self._rows[work.cell] = _Row(work, "start", self.clock())

    def progress(self, progress: Progress) -> None:
        row = self._rows.get(progress.cell)
        if row is not None:
            row.phase, row.done = _one_line(progress.phase, 60), progress.done

    def finished(self, result: CellResult) -> None:
        self._rows.pop(result.cell, None)
        self._done += 1
        self.console.print(result_line(result))

    def say(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False)

    def _shown(self) -> Group:
        table = Table(box=None, padding=(0, 2, 0, 0))
        now = self.clock()
        for row in self._rows.values():
            checks = len(row.work.checks)
            table.add_row(
                Text(str(row.work.cell)),
                _bar(row.done, checks),
                f"{row.done}/{checks}",
                f"{now - row.since:.0f} s",
                Text(row.phase),
            )
        return Group(Text(self._title(), style="bold"), table)

    def _title(self) -> str:
        elapsed = self.clock() - self._begin
        return f"{self._done} of {self.total} cells · {elapsed:.0f} s · {self._remaining(elapsed)}"

    def _remaining(self, elapsed: float) -> str:
        expected_s = elapsed / self._done * self.total if self._done else self.estimate_s
        return f"about {max(0.0, expected_s - elapsed):.0f} s left"


def _bar(done: int, total: int, width: int = 16) -> str:
    filled = width * done // total if total else 0
    return "━" * filled + "╌" * (width - filled)


def for_console(console: Console, *, total: int, estimate_s: float) -> Display:
    """Live on a terminal, plain lines anywhere else."""
    if console.is_terminal:
        return LiveDisplay(console, total, estimate_s)
    return PlainDisplay(console, total)
