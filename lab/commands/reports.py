"""Commands that read runs: `lab report`, `lab diff`, `lab verdict`."""

from __future__ import annotations

from pathlib import Path

import click

from lab.commands import options
from lab.commands.shared import (
    catalogue_of,
    console,
    newest_runs,
    print_json,
    run_directory,
    stored_run,
    tables,
    with_drivers,
    write_site,
)
from lab.errors import ConfigurationError, ExitCode

RUN = 'Its id, its folder, or "last".'
RUNS = 'Ids, folders, or "last".'


@click.command()
@click.argument("runs", nargs=-1, help=RUNS)
@click.option(
    "--out", type=options.FOLDER, default=options.REPORTS / "site", show_default=True, help="The folder of the site."
)
def report(runs: tuple[str, ...], out: Path) -> ExitCode:
    """Write the site from these runs, or from the newest ones."""
    directories = [run_directory(name) for name in runs] or newest_runs(options.REPORTS)
    if not directories:
        raise ConfigurationError("there is no run to report", hint="lab run INVENTORY makes one")
    print(write_site(directories, out, catalogue_of(directories[-1])))  # noqa: T201
    return ExitCode.AS_EXPECTED


@click.command()
@click.argument("run_a", help=RUN)
@click.argument("run_b", help="Another one.")
@options.as_json
def diff(run_a: str, run_b: str, json: bool) -> ExitCode:
    """Say what changed from run A to run B.

    In seven classes; ends with 1 when something regressed.
    """
    from lab.results import diff as comparison

    found = comparison.diff(stored_run(run_a), stored_run(run_b))
    if json:
        print_json(comparison.as_json(found))
    else:
        tables().diff(console(), comparison.as_json(found))
    return ExitCode.PRODUCT_FAILED if comparison.as_json(found)["regressed"] else ExitCode.AS_EXPECTED


@click.command()
@click.argument("runs", nargs=-1, required=True, help=RUNS)
@click.option("--cell", metavar="GLOB", default="*", help="Only cells whose name matches.")
@click.option("--feature", metavar="GLOB", default="*", help="Only features whose id matches.")
@options.as_json
def verdict(runs: tuple[str, ...], cell: str, feature: str, json: bool) -> ExitCode:
    """Show the verdicts of runs, as the site shows them."""
    from lab.results import verdicts

    directories = [run_directory(run) for run in runs]
    known = with_drivers(catalogue_of(directories[-1]), directories)
    features = {check.id: check.feature for check in known.checks}
    computed = verdicts.of_runs([stored_run(name) for name in runs], cell=cell, feature=feature, features_of=features)
    if json:
        print_json(verdicts.as_json(computed))
    else:
        tables().verdicts(console(), verdicts.as_json(computed))
    return ExitCode.AS_EXPECTED
