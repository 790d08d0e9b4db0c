"""Commands that list what there is: `lab hosts`, `lab guests`, `lab features`."""

from __future__ import annotations

from pathlib import Path

import click

from lab.commands import options
from lab.commands.shared import print_json, read_inventory, show
from lab.errors import ExitCode


@click.command()
@options.inventory
@options.as_json
def hosts(inventory: Path, json: bool) -> ExitCode:
    """List the hosts of an inventory."""
    rows = [
        {"host": host.name, "driver": host.driver, "realness": str(host.realness), "insecure": list(host.insecure)}
        for host in read_inventory(inventory).hosts.values()
    ]
    return show(rows, json=json)


@click.command()
@options.inventory
@options.as_json
def guests(inventory: Path, json: bool) -> ExitCode:
    """List the guests of an inventory."""
    rows = [
        {"guest": entry.name, "title": entry.title, "family": entry.family, "missing": entry.missing() or ""}
        for entry in read_inventory(inventory).guests.values()
    ]
    return show(rows, json=json)


@click.command()
@click.argument(
    "suites",
    type=options.FOLDER,
    default=Path("suites"),
    help="The folder that holds features.yaml: ./suites when not given.",
)
@options.as_json
def features(suites: Path, json: bool) -> ExitCode:
    """List the catalogue of features with the checks of each."""
    from lab import catalogue

    loaded = catalogue.load(suites)
    if json:
        print_json(loaded.as_json())
        return ExitCode.AS_EXPECTED
    rows = [
        {
            "feature": feature.id,
            "checks": len(loaded.checks_of(feature.id)) or "no check yet",
            "meaning": feature.meaning,
        }
        for feature in loaded.features
    ]
    return show(rows, json=False)
