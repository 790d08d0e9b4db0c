"""The display: what a person and a CI log see; nothing that a guest wrote is markup or an escape."""

import io

from rich.console import Console

from lab.contracts import Cell
from lab.errors import Blame
from lab.results.record import Outcome
from lab.runner import display
from lab.runner.work import CellResult, Progress

CELL = Cell("qemu-local", "jeos", "pc-bios")


def result(outcome: Outcome | None, reason: str = "", **more: object) -> CellResult:
    return CellResult(CELL, 1, outcome, Blame.GUEST, reason, 12.34, **more)  # type: ignore[arg-type]


def plain() -> tuple[io.StringIO, display.PlainDisplay]:
    stream = io.StringIO()
    return stream, display.PlainDisplay(Console(file=stream, width=200), total=2)


def test_a_finished_cell_is_one_line_with_symbol_word_time_and_counts() -> None:
    stream, shown = plain()

    shown.finished(result(Outcome.PASSED, warm=True, counts=((Outcome.PASSED, 30), (Outcome.UNSUPPORTED, 2))))

    assert stream.getvalue() == ("[1/2] ✓ passed   qemu-local/jeos/pc-bios  12.3 s  warm  2 unsupported, 30 passed\n")


def test_a_failed_cell_says_whose_fault_and_why() -> None:
    stream, shown = plain()

    shown.finished(result(Outcome.FAILED, "the kernel panicked\n  -> see the console"))

    assert "    blame: guest. the kernel panicked -> see the console\n" in stream.getvalue()


def test_escapes_and_markup_from_a_guest_are_shown_as_text() -> None:
    stream, shown = plain()

    shown.finished(result(Outcome.FAILED, "[bold red]x[/] \x1b[2Jy\x07"))

    assert "[bold red]x[/] \N{REPLACEMENT CHARACTER}[2Jy\N{REPLACEMENT CHARACTER}" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_a_cell_without_any_record_is_not_shown_as_good() -> None:
    stream, shown = plain()

    shown.finished(result(None))

    assert "? no record" in stream.getvalue()


def test_phases_are_lines_in_a_log_and_single_checks_are_not() -> None:
    stream, shown = plain()

    shown.progress(Progress(CELL, "boot"))
    shown.progress(Progress(CELL, "conformance/boot/test_core.py::test_x", done=1, total=9))

    assert stream.getvalue() == "           qemu-local/jeos/pc-bios: boot\n"


def test_a_file_gets_the_plain_display_and_a_terminal_the_live_one() -> None:
    file = Console(file=io.StringIO())
    terminal = Console(file=io.StringIO(), force_terminal=True)

    assert isinstance(display.for_console(file, total=1, estimate_s=1.0), display.PlainDisplay)
    assert isinstance(display.for_console(terminal, total=1, estimate_s=1.0), display.LiveDisplay)


def test_the_live_display_tells_elapsed_and_remaining_time() -> None:
    now = iter([0.0, 10.0, 10.0, 10.0])
    stream = io.StringIO()
    console = Console(file=stream, width=120, force_terminal=True, color_system=None)
    shown = display.LiveDisplay(console, total=4, estimate_s=40.0, clock=lambda: next(now, 10.0))

    with shown:
        shown.finished(result(Outcome.PASSED))

    assert "1 of 4 cells" in stream.getvalue()
    assert "about 30 s left" in stream.getvalue()
