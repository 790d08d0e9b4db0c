"""What several commands share: how they read, how they print."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.commands.options import REPORTS, Selection
from lab.errors import ExitCode

if TYPE_CHECKING:  # `lab --help` must not pay for any of these
    from types import ModuleType

    from rich.console import Console

    from lab.catalogue import Catalogue
    from lab.inventory.models import Inventory
    from lab.results.store import Run as StoredRun
    from lab.runner.plan import Plan

RUNS_ON_SITE = 10
WIDE = 180  # columns


def read_inventory(path: Path) -> Inventory:
    """The inventory of a folder. Raises `InventoryProblems`."""
    from lab.inventory import load

    return load.load(path)


def read_all(path: Path) -> tuple[Inventory, Catalogue]:
    """An inventory and the catalogue that it names. Raises `InventoryProblems`."""
    from lab import catalogue

    inventory = read_inventory(path)
    return inventory, catalogue.load(inventory.suites)


def make_plan(inventory: Inventory, catalogue: Catalogue, selection: Selection) -> Plan:
    """The plan of what was selected. Raises `NothingToRun`, `ConfigurationError`."""
    from lab.runner import plan as planning

    return planning.make(
        inventory, catalogue, suite=selection.suite, select=selection.select, exclude=selection.exclude
    )


def console(*, quiet: bool = False) -> Console:
    """The terminal, or wherever standard output leads."""
    from rich.console import Console

    # Into a file or a pipe goes what can be searched there: a row on one line.
    is_free = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(stderr=quiet, quiet=quiet, soft_wrap=False, width=WIDE if is_free else None)


def tables() -> ModuleType:
    """The module that draws tables, imported when one is drawn."""
    from lab import tables as module

    return module


def print_json(document: object) -> None:
    """One document on standard output."""
    import json

    print(json.dumps(document, indent=1, default=str))  # noqa: T201


def show(rows: Sequence[dict[str, Any]], *, json: bool) -> ExitCode:
    """Rows as a table, or as JSON."""
    if json:
        print_json(rows)
    else:
        tables().rows(console(), rows)
    return ExitCode.AS_EXPECTED


def command_line() -> str:
    """The command as it was typed, for the record."""
    return shlex.join(["lab", *sys.argv[1:]])


def run_directory(name: str) -> Path:
    """The folder of a run given by id, folder or "last". Raises `RunError`."""
    from lab.runner import resume

    return resume.find(REPORTS, name).root


def newest_runs(reports: Path) -> list[Path]:
    """The runs that the site is made of."""
    from lab.results import layout

    return list(layout.run_directories(reports))[-RUNS_ON_SITE:]


def stored_run(name: str) -> StoredRun:
    """A run to read. Raises `RunError`."""
    from lab.results import store

    return store.Run.open(run_directory(name))


def catalogue_of(run: Path) -> Catalogue:
    """The catalogue of the inventory that a run was made from."""
    from lab import catalogue
    from lab.results import store

    return catalogue.load(read_inventory(Path(store.Run.open(run).document.inventory)).suites)


def write_site(runs: Sequence[Path], out: Path, catalogue: Catalogue) -> Path:
    """Write the site; the path of its first page."""
    from lab.site import pages

    return pages.write(runs, out, with_drivers(catalogue, runs))


def with_drivers(catalogue: Catalogue, runs: Sequence[Path]) -> Catalogue:
    """The catalogue, with the contract for drivers where one of the runs is a qualification."""
    from lab.results import store
    from lab.results.record import is_of_driver

    planned = (cell for run in runs for cell in store.Run.open(run).planned())
    if not any(cell.checks and is_of_driver(cell.checks[0]) for cell in planned):
        return catalogue
    from lab.testing import qualification

    return qualification.with_contract(catalogue)
