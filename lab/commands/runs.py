"""Commands that plan and run: `lab plan`, `lab run`, `lab cell`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lab.commands import options
from lab.commands.options import HowToRun, Selection
from lab.commands.shared import (
    command_line,
    console,
    make_plan,
    newest_runs,
    print_json,
    read_all,
    tables,
    write_site,
)
from lab.errors import ExitCode

if TYPE_CHECKING:  # `lab --help` must not pay for any of these
    from lab.catalogue import Catalogue
    from lab.runner.run import Run


@click.command()
@options.inventory
@options.selection
@options.as_json
def plan(inventory: Path, selection: Selection, json: bool) -> ExitCode:
    """Show which cells a run would start, and start nothing.

    With the number of checks in each, what is excluded and why, and how long it may take.
    """
    from lab.runner import plan as planning

    loaded, catalogue = read_all(inventory)
    made = make_plan(loaded, catalogue, selection)
    if json:
        print_json(planning.as_json(made))
    else:
        tables().plan(console(), made)
    return ExitCode.AS_EXPECTED


@click.command()
@options.inventory
@options.selection
@options.how_to_run_or_resume
@options.as_json
@options.quiet
def run(inventory: Path, selection: Selection, how: HowToRun, json: bool, quiet: bool) -> ExitCode:
    """Run all cells of an inventory, or those selected.

    Writes the directory of the run, then the site; the path of the site is the last line.
    """
    from lab.runner import resume as resumption
    from lab.runner import run as running

    loaded, catalogue = read_all(inventory)
    wish = running.Wish(str(inventory), how.reports, command_line(), how.attempts, use_warm=not how.cold)
    screen = console(quiet=quiet or json)
    if how.resume is not None:
        files = resumption.find(how.reports, how.resume)
        begun = running.resumed(loaded, catalogue, files, wish, screen)
    else:
        made = make_plan(loaded, catalogue, selection)
        begun = running.new(loaded, catalogue, made, wish, screen)
    return carry_out(begun, catalogue, json=json, quiet=quiet)


@click.command()
@options.inventory
@options.cell_name
@options.suite
@options.how_to_run
def cell(inventory: Path, cell: str, suite: str | None, how: HowToRun) -> ExitCode:
    """Run one cell, exactly as a run does it."""
    from lab.contracts import Cell
    from lab.runner import run as running

    wanted = Cell.parse(cell)
    loaded, catalogue = read_all(inventory)
    made = make_plan(loaded, catalogue, Selection(select=(wanted.name,), suite=suite))
    wish = running.Wish(str(inventory), how.reports, command_line(), how.attempts, use_warm=not how.cold)
    return carry_out(running.new(loaded, catalogue, made, wish, console()), catalogue, json=False, quiet=False)


def carry_out(begun: Run, catalogue: Catalogue, *, json: bool, quiet: bool) -> ExitCode:
    """Carry a run out, write the site, say where everything is."""
    code: ExitCode = begun.execute()
    reports: Path = begun.wish.reports
    index = write_site(newest_runs(reports), reports / "site", catalogue)
    if json:
        print_json({"run": begun.layout.root.name, "directory": begun.layout.root, "exit_code": code, "site": index})
    else:
        tables().run_summary(console(quiet=quiet), begun, code)
        print(index.resolve())  # noqa: T201 - the last line is the path of the site
    return code
