"""Commands about this machine: `lab doctor`, `lab triage`, `lab reap`."""

from __future__ import annotations

from pathlib import Path

from lab.commands.shared import Json, console, print_json, read_inventory, show, tables
from lab.errors import ConfigurationError, ExitCode


def doctor(inventory: Path | None = None, *, json: Json = False) -> ExitCode:
    """Say what works on this machine and what does not, with the remedy; proves the accelerator by booting.

    Parameters
    ----------
    inventory
        Look at the hosts of this inventory too.
    """
    from lab.runner import doctor as examination

    findings = examination.examine(read_inventory(inventory) if inventory else None)
    if json:
        print_json(examination.as_json(findings))
    else:
        tables().findings(console(), findings)
    return examination.exit_code(findings)


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
        print_json(found)
    else:
        tables().facts(console(), found)
    return ExitCode.AS_EXPECTED


def reap(inventory: Path, *, json: Json = False) -> ExitCode:
    """Destroy what dead runs left behind on the hosts of an inventory; touch nothing else."""
    from dataclasses import asdict

    from lab.runner import reap as reaping

    found = reaping.reap(read_inventory(inventory))
    rows = [{**asdict(each), "destroyed": list(each.destroyed)} for each in found]
    show(rows, json=json)
    return ExitCode.LAB_AT_FAULT if any(each.problem for each in found) else ExitCode.AS_EXPECTED
