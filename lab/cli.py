"""The `lab` command: each command a docstring and a few lines; the only place that turns an error into an exit code."""

from __future__ import annotations

import json as json_format
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter

from lab.errors import ConfigurationError, ExitCode, LabError

if TYPE_CHECKING:  # `lab --help` must not pay for any of these
    from rich.console import Console

    from lab.catalogue import Catalogue
    from lab.inventory.models import Inventory
    from lab.results.store import Run as StoredRun
    from lab.runner.plan import Plan

app = App(
    name="lab",
    help="Provision guests on hypervisors, check that they work together, publish what really works.",
    help_format="plaintext",
    version_flags=[],
)
images = App(name="images", help="Images to start guests from: list, build, verify.")
app.command(images)

Suite = Literal["smoke", "conformance", "performance"]
Json = Annotated[
    bool, Parameter(name="--json", negative=(), help="One JSON document on standard output, nothing else.")
]
Quiet = Annotated[bool, Parameter(name=["--quiet", "-q"], negative=(), help="Only what went wrong.")]
Globs = Annotated[tuple[str, ...], Parameter(negative=())]
REPORTS = Path("reports")
RUNS_ON_SITE = 10


@Parameter(name="*")
@dataclass(frozen=True)
class Selection:
    """Which cells."""

    select: Globs = ()
    "Only cells whose name matches this glob; may be given several times."
    exclude: Globs = ()
    "No cell whose name matches this glob; may be given several times."
    suite: Suite | None = None
    "Only the checks of this suite."


ALL_CELLS = Selection()


@app.command
def doctor(inventory: Path | None = None, *, json: Json = False) -> ExitCode:
    """Say what works on this machine and what does not, with the remedy; proves the accelerator by booting.

    Parameters
    ----------
    inventory
        Look at the hosts of this inventory too.
    """
    from lab.runner import doctor as examination

    findings = examination.examine(_inventory(inventory) if inventory else None)
    if json:
        _print_json(examination.as_json(findings))
    else:
        _tables().findings(_console(), findings)
    return examination.exit_code(findings)


@app.command
def plan(inventory: Path, *, selection: Selection = ALL_CELLS, json: Json = False) -> ExitCode:
    """Show the cells, the checks in each, what is excluded and why, the expected time; start nothing."""
    from lab.runner import plan as planning

    loaded, catalogue = _load(inventory)
    made = _plan(loaded, catalogue, selection)
    if json:
        _print_json(planning.as_json(made))
    else:
        _tables().plan(_console(), made)
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


@app.command
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

    loaded, catalogue = _load(inventory)
    wish = running.Wish(str(inventory), how.reports, _command_line(), how.attempts, use_warm=not how.cold)
    console = _console(quiet=quiet or json)
    if how.resume is not None:
        files = resumption.find(how.reports, how.resume)
        begun = running.resumed(loaded, catalogue, files, wish, console)
    else:
        made = _plan(loaded, catalogue, selection)
        begun = running.new(loaded, catalogue, made, wish, console)
    return _execute(begun, catalogue, json=json, quiet=quiet)


@app.command
def cell(inventory: Path, name: str, *, suite: Suite | None = None, how: HowToRun = DEFAULT_RUN) -> ExitCode:
    """Run one cell, HOST/GUEST/PROFILE, exactly as a run does it."""
    from lab.contracts import Cell
    from lab.runner import run as running

    wanted = Cell.parse(name)
    loaded, catalogue = _load(inventory)
    made = _plan(loaded, catalogue, Selection(select=(wanted.name,), suite=suite))
    wish = running.Wish(str(inventory), how.reports, _command_line(), how.attempts, use_warm=not how.cold)
    return _execute(running.new(loaded, catalogue, made, wish, _console()), catalogue, json=False, quiet=False)


@app.command
def report(runs: Annotated[tuple[str, ...], Parameter(negative=())] = (), *, out: Path = REPORTS / "site") -> ExitCode:
    """Write the site from runs (ids, folders or "last"); without any, from the newest ones.

    Parameters
    ----------
    out
        The folder of the site.
    """
    directories = [_run_directory(name) for name in runs] or _newest_runs(REPORTS)
    if not directories:
        raise ConfigurationError("there is no run to report", hint="lab run INVENTORY makes one")
    print(_site(directories, out, _catalogue_of(directories[-1])))  # noqa: T201
    return ExitCode.AS_EXPECTED


@app.command
def diff(run_a: str, run_b: str, *, json: Json = False) -> ExitCode:
    """Say what changed from run A to run B, in seven classes; exit with 1 when something regressed."""
    from lab.results import diff as comparison

    found = comparison.diff(_stored(run_a), _stored(run_b))
    if json:
        _print_json(comparison.as_json(found))
    else:
        _tables().diff(_console(), comparison.as_json(found))
    return ExitCode.PRODUCT_FAILED if comparison.as_json(found)["regressed"] else ExitCode.AS_EXPECTED


@app.command
def verdict(runs: tuple[str, ...], *, cell: str = "*", feature: str = "*", json: Json = False) -> ExitCode:
    """Show the verdicts of runs, as the site shows them.

    Parameters
    ----------
    cell
        A glob over cell names.
    feature
        A glob over features.
    """
    from datetime import UTC, datetime
    from fnmatch import fnmatchcase

    from lab.results import statements, verdicts

    directories = [_run_directory(name) for name in runs]
    catalogue = _catalogue_of(directories[-1])
    computed = verdicts.compute(
        [_stored(name) for name in runs],
        now=datetime.now(UTC),
        statements=statements.load(_statements_of(directories[-1])),
        features_of={check.id: check.feature for check in catalogue.checks},
    )
    wanted = [each for each in computed if fnmatchcase(each.cell, cell) and fnmatchcase(each.feature, feature)]
    if json:
        _print_json(verdicts.as_json(wanted))
    else:
        _tables().verdicts(_console(), verdicts.as_json(wanted))
    return ExitCode.AS_EXPECTED


@app.command
def triage(console_log: Path, *, json: Json = False) -> ExitCode:
    """Read a console log: did it boot, what stopped it, whose fault, which system.

    Parameters
    ----------
    console_log
        A file; at most its first and last 8 MiB are read.
    """
    from lab.guests import triage as reader

    try:
        content = console_log.read_bytes()
    except OSError as reason:
        raise ConfigurationError(f"{console_log} cannot be read: {reason.strerror}") from reason
    found = reader.triage(content).as_json()
    if json:
        _print_json(found)
    else:
        _tables().facts(_console(), found)
    return ExitCode.AS_EXPECTED


@app.command
def hosts(inventory: Path, *, json: Json = False) -> ExitCode:
    """List the hosts of an inventory."""
    rows = [
        {"host": host.name, "driver": host.driver, "realness": str(host.realness), "insecure": list(host.insecure)}
        for host in _inventory(inventory).hosts.values()
    ]
    return _show(rows, json=json)


@app.command
def guests(inventory: Path, *, json: Json = False) -> ExitCode:
    """List the guests of an inventory."""
    rows = [
        {"guest": entry.name, "title": entry.title, "family": entry.family, "missing": entry.missing() or ""}
        for entry in _inventory(inventory).guests.values()
    ]
    return _show(rows, json=json)


@app.command
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
        _print_json(loaded.as_json())
        return ExitCode.AS_EXPECTED
    rows = [
        {
            "feature": feature.id,
            "checks": len(loaded.checks_of(feature.id)) or "no check yet",
            "meaning": feature.meaning,
        }
        for feature in loaded.features
    ]
    return _show(rows, json=False)


@images.command(name="list")
def list_images(*, json: Json = False) -> ExitCode:
    """List the images in the cache of this machine."""
    from lab.provisioning import images as cache

    rows = [
        {
            "image": entry.name,
            "digest": entry.digest if json else entry.digest[:19],
            "made": entry.made,
            "MiB": entry.disk_bytes >> 20,
            "current": entry.current,
            "origin": entry.origin,
        }
        for entry in cache.listing()
    ]
    return _show(rows, json=json)


@images.command(name="build")
def build_image(recipe: str) -> ExitCode:
    """Build the image of a recipe, or say where it lies already."""
    from lab.inventory.models import BuildSource
    from lab.provisioning import images as cache

    console = _console()
    image = cache.resolve(BuildSource(build=recipe), progress=lambda line: console.print(line, markup=False))
    console.print(f"{image.name} {image.digest}\n{image.disk}", markup=False, highlight=False, soft_wrap=True)
    return ExitCode.AS_EXPECTED


@images.command(name="verify")
def verify_images(inventory: Path, *, json: Json = False) -> ExitCode:
    """Compare the cached images of an inventory's guests with their digests, byte for byte."""
    from lab.errors import ImageError
    from lab.provisioning import images as cache

    rows = []
    damaged = False
    for entry in _inventory(inventory).guests.values():
        try:
            image = cache.verify(entry.image) if entry.missing() is None else None
            found = f"whole, {image.digest}" if image else "not in the cache"
        except ImageError as reason:
            damaged, found = True, str(reason)
        rows.append({"guest": entry.name, "image": found})
    _show(rows, json=json)
    return ExitCode.LAB_AT_FAULT if damaged else ExitCode.AS_EXPECTED


@app.command
def reap(inventory: Path, *, json: Json = False) -> ExitCode:
    """Destroy what dead runs left behind on the hosts of an inventory; touch nothing else."""
    from dataclasses import asdict

    from lab.runner import reap as reaping

    found = reaping.reap(_inventory(inventory))
    rows = [{**asdict(each), "destroyed": list(each.destroyed)} for each in found]
    _show(rows, json=json)
    return ExitCode.LAB_AT_FAULT if any(each.problem for each in found) else ExitCode.AS_EXPECTED


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    code: int
    try:
        answer = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        code = int(answer) if answer is not None else ExitCode.AS_EXPECTED
        sys.stdout.flush()
    except CycloptsError as reason:
        print(f"lab: {reason}\n  -> lab --help, or lab COMMAND --help", file=sys.stderr)  # noqa: T201
        code = ExitCode.USAGE
    except LabError as reason:
        print(f"lab: {reason}", file=sys.stderr)  # noqa: T201
        code = reason.exit_code
    except KeyboardInterrupt:
        print("lab: interrupted; nothing was left behind.", file=sys.stderr)  # noqa: T201
        code = ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has seen enough. Keep the interpreter from failing once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = ExitCode.AS_EXPECTED
    sys.exit(code)


# ---------------------------------------------------------------------------------------------------------
# What commands share


def _inventory(path: Path) -> Inventory:
    from lab.inventory import load

    return load.load(path)


def _load(path: Path) -> tuple[Inventory, Catalogue]:
    from lab import catalogue

    inventory = _inventory(path)
    return inventory, catalogue.load(inventory.suites)


def _plan(inventory: Inventory, catalogue: Catalogue, selection: Selection) -> Plan:
    from lab.runner import plan as planning

    return planning.make(
        inventory, catalogue, suite=selection.suite, select=selection.select, exclude=selection.exclude
    )


def _console(*, quiet: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=quiet, quiet=quiet, soft_wrap=False)


def _tables() -> Any:
    from lab import tables

    return tables


def _print_json(document: object) -> None:
    print(json_format.dumps(document, indent=1, default=str))  # noqa: T201


def _show(rows: Sequence[dict[str, Any]], *, json: bool) -> ExitCode:
    if json:
        _print_json(rows)
    else:
        _tables().rows(_console(), rows)
    return ExitCode.AS_EXPECTED


def _command_line() -> str:
    return shlex.join(["lab", *sys.argv[1:]])


def _run_directory(name: str) -> Path:
    from lab.runner import resume

    return resume.find(REPORTS, name).root


def _newest_runs(reports: Path) -> list[Path]:
    from lab.results import layout

    return list(layout.run_directories(reports))[-RUNS_ON_SITE:]


def _stored(name: str) -> StoredRun:
    from lab.results import store

    return store.Run.open(_run_directory(name))


def _catalogue_of(run: Path) -> Catalogue:
    from lab import catalogue
    from lab.results import store

    return catalogue.load(_inventory(Path(store.Run.open(run).document.inventory)).suites)


def _statements_of(run: Path) -> Path:
    from lab.results import store

    return Path(store.Run.open(run).document.inventory).parent / "statements"


def _site(runs: Sequence[Path], out: Path, catalogue: Catalogue) -> Path:
    from lab.site import pages

    return pages.write(runs, out, catalogue)


def _execute(begun: Any, catalogue: Catalogue, *, json: bool, quiet: bool) -> ExitCode:
    """Carry a run out, write the site, say where everything is."""
    code: ExitCode = begun.execute()
    reports: Path = begun.wish.reports
    index = _site(_newest_runs(reports), reports / "site", catalogue)
    if json:
        _print_json({"run": begun.layout.root.name, "directory": begun.layout.root, "exit_code": code, "site": index})
    else:
        _tables().run_summary(_console(quiet=quiet), begun, code)
        print(index.resolve())  # noqa: T201 - the last line is the path of the site
    return code
