"""Command `lab qualify`: whether a driver keeps its word on a live host."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from lab.commands import options
from lab.commands.options import REPORTS
from lab.commands.runs import carry_out
from lab.commands.shared import command_line, console, read_all
from lab.errors import ExitCode


@dataclass(frozen=True)
class Wanted:
    """What the host is tried with, and where the run goes."""

    guest: str | None
    profile: str | None
    feature: tuple[str, ...]
    reports: Path


@click.command()
@options.inventory
@click.argument("host", help="A host of the inventory.")
@options.one_value(
    "wanted",
    Wanted,
    click.option("--guest", help="The guest to look from; by default the first that the matrix gives this host."),
    click.option("--profile", help="The hardware of its machines; by default the first of the matrix for this host."),
    click.option(
        "--feature",
        metavar="GLOB",
        multiple=True,
        help="Only features whose id matches, such as driver.snapshots; may be given several times.",
    ),
    click.option(
        "--reports", type=options.FOLDER, default=REPORTS, show_default=True, help="The folder for runs and the site."
    ),
)
@options.as_json
@options.quiet
def qualify(inventory: Path, host: str, wanted: Wanted, json: bool, quiet: bool) -> ExitCode:
    """Try on a live host whether its driver keeps its word.

    Every promise of the contract for drivers is looked at from inside a guest or from outside. The result is a run
    like any other; what the host does not offer is `unsupported`, with the host's own sentence.
    """
    from lab.runner import qualify as qualifying
    from lab.runner import run as running
    from lab.testing import qualification

    loaded, catalogue = read_all(inventory)
    contract = qualification.catalogue()
    made = qualifying.plan(loaded, contract, host, qualifying.Wanted(wanted.guest, wanted.profile, wanted.feature))
    wish = running.Wish(str(inventory), wanted.reports, command_line(), use_warm=False)
    begun = running.new(loaded, contract, made, wish, console(quiet=quiet or json))
    return carry_out(begun, catalogue, json=json, quiet=quiet)
