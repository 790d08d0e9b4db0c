"""Writes the pages of docs/reference from the code that they describe; `--check` says which are out of date."""

from __future__ import annotations

import importlib
import inspect
import itertools
import json
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType

import click
import markdown as md
from pydantic import BaseModel

from lab import catalogue, cli, errors, hypervisors
from lab.contracts import CAPABILITY_PROTOCOLS, Capability, Cell, Machine, Realness
from lab.guests.triage import Triage
from lab.inventory import models
from lab.inventory.hosts import HostFields
from lab.inventory.problems import Problems
from lab.inventory.profiles import ProfileFields, read_profiles
from lab.provisioning import prune
from lab.results import diff, documents, layout, record, statements, verdicts
from lab.runner import by_hand, kept, listing, plan
from lab.testing import contract
from lab.testing.hypervisor import HypervisorContract

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from tests.testing.reference.lies import LIES  # noqa: E402 - the project's own tests are not installed


def commands() -> str:
    """Every command with its help."""
    parts = [
        "Every command ends with one of the [exit codes](exit-codes.md).",
        "INVENTORY is a folder such as `inventories/local`.",
    ]
    for context in _commands(cli.app):
        parts += [f"## {context.command_path}", md.block(context.get_help())]
    return md.page("Commands", *parts)


def exit_codes() -> str:
    """What the shell sees."""
    by_code: dict[errors.ExitCode, list[str]] = {code: [] for code in errors.ExitCode}
    for name, error in _errors():
        by_code[error.exit_code].append(md.code(name))
    said = md.comments(errors.ExitCode)
    rows = [
        (code.value, code.name.lower().replace("_", " "), said.get(code.name, ""), ", ".join(names))
        for code, names in by_code.items()
    ]
    return md.page("Exit codes", md.table(("code", "name", "meaning", "errors that end with it"), rows))


def error_catalogue() -> str:
    """Every error that the lab raises on purpose."""
    rows = [
        (md.code(name), md.first_sentences(error), error.blame.value, error.exit_code.value)
        for name, error in _errors()
    ]
    blames = md.table(("blame", "meaning"), md.members(errors.Blame))
    return md.page(
        "Errors",
        "Each says what happened and what to do next.",
        "The lab's fault is never the product's fault: an error carries its blame.",
        md.table(("error", "meaning", "blame", "exit code"), rows),
        "## Blames",
        blames,
    )


def inventory() -> str:
    """The files of an inventory."""
    sources = (models.BuildSource, models.FileSource, models.UrlSource, models.PackageSource)
    parts = [
        "Every key that is not named here is an error.",
        "All errors are shown at once, each as `file:line: key: problem`.",
        "## Hosts",
        "`hosts.yaml` is an Ansible inventory; the hosts of its group `hypervisors` are the lab's.",
        "These variables belong to every host; its driver has [more](drivers.md).",
        md.keys(HostFields, prefix="lab_"),
        "## Guests",
        "`../guests/GUEST.yaml`, one file for each guest.",
        md.keys(models.GuestFile),
    ]
    for title, model in (("os", models.OsName), ("channel", models.ChannelEntry)):
        parts += [f"### {title}", _described(model)]
    for source in sources:
        parts += [f"### image: {next(iter(source.model_fields))}", _described(source)]
    parts += [
        "## Profiles",
        "`../profiles.yaml`; `like: NAME` takes the rest from another profile.",
        md.keys(ProfileFields),
    ]
    parts += ["## The matrix", "`matrix.yaml`. Every glob is over `HOST/GUEST/PROFILE`.", md.keys(models.MatrixFile)]
    for title, model in (
        ("include", models.Inclusion),
        ("exclude", models.Exclusion),
        ("known_issues", models.KnownIssue),
    ):
        parts += [f"### {title}", _described(model)]
    parts += ["## Statements", "`../statements/VENDOR.yaml`: what a vendor says.", md.keys(statements.StatementFile)]
    parts += ["### entries", md.keys(statements.Entry), "### sources", md.keys(statements.Source)]
    return md.page("Inventory", *parts)


def drivers() -> str:
    """What each driver needs, can do, and refuses."""
    profiles = read_profiles(ROOT / "inventories/profiles.yaml", Problems()) or {}
    loaded = {name: hypervisors.load(name) for name in hypervisors.names()}
    has = {name: _capabilities(name) for name in loaded}
    matrix = [(md.code(it.value), *("yes" if it in has[name] else "" for name in loaded)) for it in Capability]
    parts = [
        "The file's name is the `lab_driver` of a host.",
        "A driver *has* a capability when its methods are there; a host may still refuse it, and says why.",
        md.table(("capability", *loaded), matrix),
        "How real a host of the driver is, unless its inventory says otherwise:",
        md.table(("realness", "meaning"), md.members(Realness)),
    ]
    for name, driver in loaded.items():
        refusals = [
            (md.code(profile.name), driver.refuses(profile) or "yes")
            for profile in profiles.values()
            if profile is not None
        ]
        parts += [
            f"## {name}",
            md.first_sentences(driver),
            f"Realness: `{driver.REALNESS.value}`. Extra: `pip install 'interop-lab[{name}]'`.",
            md.keys(driver.Settings, prefix="lab_"),
            *(part for model in _entries_of(driver.Settings) for part in (f"### {model.__name__}", _described(model))),
            md.table(("profile of inventories/profiles.yaml", "can be made"), refusals),
        ]
        limits = _limits(name)
        if limits:
            rows = [(md.code(it.value), limits[it]) for it in Capability if it in limits]
            parts += ["What none of its hosts can do:", md.table(("capability", "why"), rows)]
    return md.page("Drivers", *parts)


def _entries_of(settings: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """The models that a key of the settings lists."""
    for field in settings.model_fields.values():
        for one in typing.get_args(field.annotation):
            if inspect.isclass(one) and issubclass(one, BaseModel):
                yield one


def driver_contract() -> str:
    """What a driver promises, which test proves it, and which lies that test has been seen to convict."""
    tests = list(contract.contract_tests(HypervisorContract))
    lies = {test.name: [lie.does for lie in LIES if test.name in lie.convicted_by] for test in tests}
    parts = [
        f"The contract suite for drivers, `lab/testing/hypervisor.py`: {len(tests)} tests.",
        "[`lab qualify`](commands.md) runs it against a live host; the tests of every driver run it as well.",
        "Each test has been seen to fail: a driver of the project's own tests, whose machines are folders,",
        f"keeps the whole contract, or all of it but for one of {len(LIES)} lies.",
    ]
    for what in (*contract.REQUIRED, *Capability):
        feature = contract.feature_of(what)
        rows = [(md.code(test.name), "; ".join(lies[test.name])) for test in tests if test.feature == feature]
        needed = "" if isinstance(what, Capability) else " Every driver must."
        head = ("test", "fails for a driver that")
        parts += [f"## {feature}", f"{contract.meaning_of(what)}.{needed}", md.table(head, rows)]
    return md.page("The contract for drivers", *parts)


def features() -> str:
    """The catalogue."""
    found = catalogue.load(ROOT / "suites")
    checked = sum(bool(found.checks_of(feature.id)) for feature in found.features)
    parts = [
        f"{len(found.features)} features, {checked} of them with checks ({len(found.checks)} checks).",
        "A feature without a check is shown as *no data*.",
    ]
    for area, members in itertools.groupby(found.features, key=lambda feature: feature.area):
        rows = [
            (
                md.code(it.id),
                it.meaning,
                ", ".join(it.families),
                ", ".join(it.hypervisors),
                len(found.checks_of(it.id)) or "",
            )
            for it in members
        ]
        parts += [f"## {area}", md.table(("feature", "meaning", "families", "hypervisors", "checks"), rows)]
    return md.page("Features", *parts)


def checks() -> str:
    """Every check of the suites."""
    found = catalogue.load(ROOT / "suites")
    parts = [
        "A check asks for a *cold* machine when a copy that booted elsewhere would prove nothing.",
        "It *needs* capabilities of the machine or the hypervisor.",
    ]
    for feature in found.features:
        rows = [
            (
                md.code(it.id.rpartition("::")[2]),
                it.meaning,
                it.level,
                "yes" if it.cold else "",
                ", ".join(sorted(it.needs)),
                "yes" if it.defect else "",
            )
            for it in found.checks_of(feature.id)
        ]
        if rows:
            head = ("check", "meaning", "level", "cold", "needs", "defect seeded")
            parts += [f"## {feature.id}", feature.meaning, md.table(head, rows)]
    return md.page("Checks", *parts)


def outcomes() -> str:
    """Outcomes, verdicts and classes of change."""
    return md.page(
        "Outcomes and verdicts",
        "## Outcome of a record",
        "Worst last.",
        md.table(("outcome", "meaning"), md.members(record.Outcome)),
        "## Observed",
        md.first_sentences(verdicts.Observed),
        md.table(("observed", "meaning"), md.members(verdicts.Observed)),
        "## Expected",
        md.first_sentences(statements.Expected),
        md.table(("expected", "meaning"), md.members(statements.Expected)),
        "## Verdict",
        md.first_sentences(verdicts.Word),
        md.table(("verdict", "meaning"), md.members(verdicts.Word)),
        "## Classes of change",
        (inspect.getdoc(diff) or "").partition("\n\n")[2],
    )


def run_directory() -> str:
    """The files of a run."""
    at = layout.RunLayout(Path("RUN"))
    attempt = at.attempt(Cell("host", "guest", "profile"), 1)
    paths = [*_paths(at), *_paths(attempt)]
    return md.page(
        "The directory of a run",
        "A run is a directory that can be read without the program. It lies in `reports/runs/RUN`.",
        md.block("\n".join(sorted({str(path) for path in paths}))),
        "## run.json",
        _described(documents.RunDocument),
        "## cell.json",
        _described(documents.CellDocument),
        "## journal.jsonl",
        _described(documents.JournalEvent),
        "## records.jsonl",
        "Each line is a [record](json.md#record).",
    )


def json_documents() -> str:
    """The JSON that commands print."""
    cell = Cell("qemu", "debian-12", "q35-uefi")
    planned = plan.PlannedCell(cell, Realness.REAL, ("conformance/boot/test_core.py::test_it_boots",), None)
    change = {kind.value: [{"cell": cell.name, "feature": "boot.core", "check": "..."}] for kind in diff.Change}
    parts = [
        "Keys may be added; none is renamed without a new `schema` number.",
        "## plan",
        "`lab plan --json`, and `plan.json` of a run.",
        md.block(json.dumps(plan.as_json(plan.Plan((planned,), 60.0)), indent=2), "json"),
        "## record",
        _described(record.Record),
        "### measured",
        _described(record.Measure),
        "## diff",
        "`lab diff A B --json`: each class is there, also an empty one.",
        md.block(json.dumps(change, indent=2), "json"),
        "## verdict",
        "`lab verdict RUN --json`: a list of these.",
        md.block(inspect.getsource(verdicts.Verdict.as_json), "python"),
        "## ls",
        "`lab ls --json`.",
        md.block(inspect.getsource(listing.Listing.as_json), "python"),
        "Each machine:",
        md.block(inspect.getsource(listing.Listed.as_json), "python"),
        "## up",
        "`lab up INVENTORY CELL --json`, with `how` it came up beside these keys: "
        + ", ".join(md.code(how.value) for how in by_hand.How)
        + ".",
        md.keys(kept.Document),
        "## images prune",
        "`lab images prune INVENTORIES --json`.",
        md.block(inspect.getsource(prune.as_json), "python"),
        "## triage",
        "`lab triage LOG --json`.",
        md.block(inspect.getsource(Triage.as_json), "python"),
    ]
    return md.page("JSON", *parts)


PAGES: Mapping[str, Callable[[], str]] = {
    "commands": commands,
    "exit-codes": exit_codes,
    "errors": error_catalogue,
    "inventory": inventory,
    "drivers": drivers,
    "driver-contract": driver_contract,
    "features": features,
    "checks": checks,
    "outcomes": outcomes,
    "run-directory": run_directory,
    "json": json_documents,
}


def _described(model: type[BaseModel]) -> str:
    """What a document says of itself, then its keys."""
    return f"{md.first_sentences(model)}\n\n{md.keys(model)}"


def _errors() -> list[tuple[str, type[errors.LabError]]]:
    return [
        (name, value)
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, errors.LabError)
    ]


def _commands(command: click.Command, above: click.Context | None = None) -> Iterator[click.Context]:
    """A context for each command, in the order of their names."""
    context = click.Context(command, above, command.name, terminal_width=100)
    if above is not None:
        yield context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            yield from _commands(command.commands[name], context)


def _capabilities(driver: str) -> set[Capability]:
    """What the classes of a driver's modules have the methods for."""
    classes = [
        value
        for module in _modules_of(driver)
        for value in vars(module).values()
        if inspect.isclass(value) and value.__module__ == module.__name__
    ]
    whole = [it for it in classes if _has(it, Machine) or (hasattr(it, "create") and hasattr(it, "machines"))]
    return {it for it, protocol in CAPABILITY_PROTOCOLS.items() if any(_has(owner, protocol) for owner in whole)}


def _modules_of(driver: str) -> list[ModuleType]:
    folder = Path(hypervisors.__file__).parent
    names = [driver, *(path.stem for path in sorted(folder.glob(f"_{driver}_*.py")))]
    return [importlib.import_module(f"lab.hypervisors.{name}") for name in names]


def _limits(driver: str) -> Mapping[Capability, str]:
    """The sentences that hold for every host of a driver, where one of its modules has them as `LIMITS`."""
    found = (getattr(module, "LIMITS", None) for module in _modules_of(driver))
    return next((limits for limits in found if limits), {})


def _has(owner: type, protocol: type) -> bool:
    methods = [name for name in vars(protocol) if not name.startswith("_")]
    return all(hasattr(owner, name) for name in methods)


def _paths(of: object) -> list[Path]:
    properties = inspect.getmembers(type(of), lambda it: isinstance(it, property))
    values = (getattr(of, name) for name, _ in properties)
    return [value for value in values if isinstance(value, Path)]


def main(arguments: list[str]) -> int:
    """Write every page, or with `--check` compare only; return the exit code."""
    stale = []
    for name, make in PAGES.items():
        path, text = HERE / f"{name}.md", make()
        if path.is_file() and path.read_text() == text:
            continue
        stale.append(path.relative_to(ROOT))
        if "--check" not in arguments:
            path.write_text(text)
    for path in stale:
        print(f"{path}: {'out of date; make docs writes it anew' if '--check' in arguments else 'written'}")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
