"""Arguments and options that several commands take, and how some of them are handed over as one value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from lab.errors import ExitCode

Callback = Callable[..., ExitCode]
Decorated = TypeVar("Decorated", bound=Callable[..., Any])
Decorator = Callable[[Decorated], Decorated]

REPORTS = Path("reports")
SUITES = ("smoke", "conformance", "performance")
EXECUTORS = ("local",)
FOLDER = click.Path(path_type=Path)


@dataclass(frozen=True)
class Selection:
    """Which cells, and which of their checks."""

    select: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    suite: str | None = None


@dataclass(frozen=True)
class HowToRun:
    """How a plan is carried out."""

    attempts: int
    cold: bool
    executor: str
    reports: Path
    resume: str | None = None


def one_value(name: str, kind: type[Any], *options: Decorator[Callback]) -> Callable[[Callback], Callback]:
    """A decorator: the command takes these options and gets their values as one, `name`, of a dataclass `kind`."""
    names = [field.name for field in fields(kind)]

    def decorate(command: Callback) -> Callback:
        @wraps(command)
        def call(**values: Any) -> ExitCode:
            taken = {key: values.pop(key) for key in names if key in values}
            return command(**{name: kind(**taken)}, **values)

        wrapped: Callback = call
        for option in reversed(options):
            wrapped = option(wrapped)
        return wrapped

    return decorate


inventory = click.argument("inventory", type=FOLDER, help="A folder such as inventories/local.")
cell_name = click.argument("cell", help="HOST/GUEST/PROFILE, as `lab plan` shows it.")
as_json = click.option("--json", is_flag=True, help="One JSON document on standard output, nothing else.")
quiet = click.option("-q", "--quiet", is_flag=True, help="Only what went wrong.")
suite = click.option("--suite", type=click.Choice(SUITES), help="Only the checks of this suite.")

selection = one_value(
    "selection",
    Selection,
    click.option(
        "--select", metavar="GLOB", multiple=True, help="Only cells whose name matches; may be given several times."
    ),
    click.option(
        "--exclude", metavar="GLOB", multiple=True, help="No cell whose name matches; may be given several times."
    ),
    suite,
)

_HOW = (
    click.option(
        "--attempts",
        type=click.IntRange(min=1),
        metavar="N",
        default=1,
        show_default=True,
        help="How often a cell that fails is tried; every attempt is kept and shown.",
    ),
    click.option("--cold", is_flag=True, help="Boot every machine; start none from a saved copy."),
    click.option(
        "--executor", type=click.Choice(EXECUTORS), default="local", show_default=True, help="Where the cells run."
    ),
    click.option(
        "--reports", type=FOLDER, default=REPORTS, show_default=True, help="The folder for runs and the site."
    ),
)
how_to_run = one_value("how", HowToRun, *_HOW)
how_to_run_or_resume = one_value(
    "how",
    HowToRun,
    *_HOW,
    click.option("--resume", metavar="RUN", help='Take up a run that was killed: its id, its folder, or "last".'),
)
