"""Commands that read runs: `lab report`, `lab diff`, `lab verdict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from lab.commands.shared import (
    REPORTS,
    Json,
    catalogue_of,
    console,
    newest_runs,
    print_json,
    run_directory,
    stored_run,
    tables,
    write_site,
)
from lab.errors import ConfigurationError, ExitCode


def report(runs: Annotated[tuple[str, ...], Parameter(negative=())] = (), *, out: Path = REPORTS / "site") -> ExitCode:
    """Write the site from runs (ids, folders or "last"); without any, from the newest ones.

    Parameters
    ----------
    out
        The folder of the site.
    """
    directories = [run_directory(name) for name in runs] or newest_runs(REPORTS)
    if not directories:
        raise ConfigurationError("there is no run to report", hint="lab run INVENTORY makes one")
    print(write_site(directories, out, catalogue_of(directories[-1])))  # noqa: T201
    return ExitCode.AS_EXPECTED


def diff(run_a: str, run_b: str, *, json: Json = False) -> ExitCode:
    """Say what changed from run A to run B, in seven classes; exit with 1 when something regressed."""
    from lab.results import diff as comparison

    found = comparison.diff(stored_run(run_a), stored_run(run_b))
    if json:
        print_json(comparison.as_json(found))
    else:
        tables().diff(console(), comparison.as_json(found))
    return ExitCode.PRODUCT_FAILED if comparison.as_json(found)["regressed"] else ExitCode.AS_EXPECTED


def verdict(runs: tuple[str, ...], *, cell: str = "*", feature: str = "*", json: Json = False) -> ExitCode:
    """Show the verdicts of runs, as the site shows them.

    Parameters
    ----------
    cell
        A glob over cell names.
    feature
        A glob over features.
    """
    from lab.results import verdicts

    features = {check.id: check.feature for check in catalogue_of(run_directory(runs[-1])).checks}
    computed = verdicts.of_runs([stored_run(name) for name in runs], cell=cell, feature=feature, features_of=features)
    if json:
        print_json(verdicts.as_json(computed))
    else:
        tables().verdicts(console(), verdicts.as_json(computed))
    return ExitCode.AS_EXPECTED
