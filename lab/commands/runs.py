"""Commands that plan and run: `lab plan`, `lab run`, `lab cell`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from lab.commands.shared import (
    ALL_CELLS,
    REPORTS,
    Json,
    Quiet,
    Selection,
    Suite,
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


def plan(inventory: Path, *, selection: Selection = ALL_CELLS, json: Json = False) -> ExitCode:
    """Show the cells, the checks in each, what is excluded and why, the expected time; start nothing."""
    from lab.runner import plan as planning

    loaded, catalogue = read_all(inventory)
    made = make_plan(loaded, catalogue, selection)
    if json:
        print_json(planning.as_json(made))
    else:
        tables().plan(console(), made)
    return ExitCode.AS_EXPECTED


@Parameter(name="*")
@dataclass(frozen=True)
class HowToRun:
    """How a plan is carried out."""

    attempts: int = 1
    "How often a cell that fails is tried; every attempt is kept and shown."
    cold: Annotated[bool, Parameter(negative=())] = False
    "Boot every machine; start none from a saved copy."
    resume: str | None = None
    'Take up a run that was killed: its id, its folder, or "last".'
    executor: Literal["local"] = "local"
    "Where the cells run."
    reports: Path = REPORTS
    "The folder for runs and the site."


DEFAULT_RUN = HowToRun()


def run(
    inventory: Path,
    *,
    selection: Selection = ALL_CELLS,
    how: HowToRun = DEFAULT_RUN,
    json: Json = False,
    quiet: Quiet = False,
) -> ExitCode:
    """Run the plan of an inventory, write the run's directory, then the site; its path is the last line."""
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
    return _execute(begun, catalogue, json=json, quiet=quiet)


def cell(inventory: Path, name: str, *, suite: Suite | None = None, how: HowToRun = DEFAULT_RUN) -> ExitCode:
    """Run one cell, HOST/GUEST/PROFILE, exactly as a run does it."""
    from lab.contracts import Cell
    from lab.runner import run as running

    wanted = Cell.parse(name)
    loaded, catalogue = read_all(inventory)
    made = make_plan(loaded, catalogue, Selection(select=(wanted.name,), suite=suite))
    wish = running.Wish(str(inventory), how.reports, command_line(), how.attempts, use_warm=not how.cold)
    return _execute(running.new(loaded, catalogue, made, wish, console()), catalogue, json=False, quiet=False)


def _execute(begun: Run, catalogue: Catalogue, *, json: bool, quiet: bool) -> ExitCode:
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
