"""Commands that list what there is: `lab hosts`, `lab guests`, `lab features`."""

from __future__ import annotations

from pathlib import Path

from lab.commands.shared import Json, print_json, read_inventory, show
from lab.errors import ExitCode


def hosts(inventory: Path, *, json: Json = False) -> ExitCode:
    """List the hosts of an inventory."""
    rows = [
        {"host": host.name, "driver": host.driver, "realness": str(host.realness), "insecure": list(host.insecure)}
        for host in read_inventory(inventory).hosts.values()
    ]
    return show(rows, json=json)


def guests(inventory: Path, *, json: Json = False) -> ExitCode:
    """List the guests of an inventory."""
    rows = [
        {"guest": entry.name, "title": entry.title, "family": entry.family, "missing": entry.missing() or ""}
        for entry in read_inventory(inventory).guests.values()
    ]
    return show(rows, json=json)


def features(suites: Path = Path("suites"), *, json: Json = False) -> ExitCode:
    """List the catalogue of features with the checks of each.

    Parameters
    ----------
    suites
        The folder that holds features.yaml.
    """
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
