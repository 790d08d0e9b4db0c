"""Commands about this machine: `lab doctor`, `lab triage`, `lab reap`."""

from __future__ import annotations

from pathlib import Path

import click

from lab.commands import options
from lab.commands.shared import console, print_json, read_inventory, show, tables
from lab.errors import ConfigurationError, ExitCode


@click.command()
@click.argument("inventory", type=options.FOLDER, required=False, help="Look at the hosts of this inventory too.")
@options.as_json
def doctor(inventory: Path | None, json: bool) -> ExitCode:
    """Say what works on this machine, and the remedy for what does not.

    An accelerator is only believed after a small guest has booted with it.
    """
    from lab.runner import doctor as examination

    findings = examination.examine(read_inventory(inventory) if inventory else None)
    if json:
        print_json(examination.as_json(findings))
    else:
        tables().findings(console(), findings)
    return examination.exit_code(findings)


@click.command()
@click.argument("console_log", type=options.FOLDER, help="A file; at most its first and last 8 MiB are read.")
@options.as_json
def triage(console_log: Path, json: bool) -> ExitCode:
    """Read a console log: did it boot, what stopped it?

    And whose fault it is, and which system it was.
    """
    from lab.guests import triage as reader

    try:
        content = console_log.read_bytes()
    except OSError as reason:
        raise ConfigurationError(f"{console_log} cannot be read: {reason.strerror}") from reason
    found = reader.triage(content).as_json()
    if json:
        print_json(found)
    else:
        tables().facts(console(), found)
    return ExitCode.AS_EXPECTED


@click.command()
@options.inventory
@click.option(
    "--older-than",
    metavar="HOURS",
    type=click.FloatRange(min=0),
    default=24,
    show_default=True,
    help="Destroy also what `lab up` brought up longer ago than this.",
)
@options.as_json
def reap(inventory: Path, older_than: float, json: bool) -> ExitCode:
    """Destroy what dead runs left behind on the hosts.

    Only machines that bear the lab's own mark, and whose run is not alive; nothing else is touched.
    """
    from dataclasses import asdict
    from datetime import timedelta
    from functools import partial

    from lab.runner import reap as reaping

    picks = partial(reaping.is_orphan, by_hand_for=timedelta(hours=older_than))
    found = reaping.reap(read_inventory(inventory), picks=picks)
    rows = [{**asdict(each), "destroyed": list(each.destroyed)} for each in found]
    show(rows, json=json)
    return ExitCode.LAB_AT_FAULT if any(each.problem for each in found) else ExitCode.AS_EXPECTED
