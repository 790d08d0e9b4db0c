"""Commands to work in a cell by hand: `lab up`, `ssh`, `console`, `screenshot`, `down`, `ls`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lab.commands import options
from lab.commands.shared import console as terminal
from lab.commands.shared import print_json, read_inventory, tables
from lab.errors import ConfigurationError, ExitCode

if TYPE_CHECKING:  # `lab --help` must not pay for any of these
    from lab.runner.by_hand import Spot

DEFAULT = Path("inventories/local")


@click.command()
@options.inventory
@options.cell_name
@click.option("--cold", is_flag=True, help="Boot the machine; do not start it from a saved copy.")
@options.as_json
@options.quiet
def up(inventory: Path, cell: str, cold: bool, json: bool, quiet: bool) -> ExitCode:
    """Bring the guest of one cell up, and leave it up.

    It stays when this command ends, for every shell, until `lab down`, or until `lab reap` finds it to be old.
    A cell that is up already is left alone; one that was powered off is started again.
    """
    from lab.runner import by_hand

    at = _spot(inventory, cell)
    # Who asks this command to end, or closes its terminal, means what Ctrl-C means: undo it.
    for asked in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(asked) is not signal.SIG_IGN:  # nohup(1)
            signal.signal(asked, signal.default_int_handler)
    document, how = by_hand.up(at, cold=cold, progress=_progress(quiet=quiet or json))
    if json:
        print_json({**document.model_dump(by_alias=True, mode="json"), "how": how})
    else:
        tables().up(terminal(quiet=quiet), at, document, how=how)
    return ExitCode.AS_EXPECTED


@click.command()
@options.inventory
@options.cell_name
@click.option("-t", "--tty", is_flag=True, help="Give the command a terminal, for editors and the like.")
@click.argument("words", metavar="[-- COMMAND...]", nargs=-1, help="Run this instead of a shell.")
def ssh(inventory: Path, cell: str, tty: bool, words: tuple[str, ...]) -> ExitCode:
    """Open a shell in a cell that is up, or run a command there.

    It is OpenSSH with the lab's key, and only the host key that the lab gave to this guest is accepted.
    As with OpenSSH, the words of a command are joined by spaces and read by the guest's shell,
    and the exit code is that of the command, or 255 when there is no connection.
    """
    from lab.runner import by_hand

    at = _spot(inventory, cell)
    with by_hand.found(at) as it:
        by_hand.require_well(at, it)
        command = by_hand.ssh_command(at, it, words, tty=tty)
    sys.stdout.flush()
    os.execv(command[0], command)  # noqa: S606 - without a shell; signals and the terminal are OpenSSH's from here on


@click.command()
@options.inventory
@options.cell_name
@click.option("--follow", is_flag=True, help="Go on with what comes, until the machine ends or Ctrl-C.")
@click.option("--raw", is_flag=True, help="As the machine sent it, with escape sequences; not for a terminal.")
def console(inventory: Path, cell: str, follow: bool, raw: bool) -> ExitCode:
    """Show the console of a cell that is up.

    Escape sequences of the guest are taken out, because they can deceive whoever reads a terminal.
    """
    from lab.runner import by_hand, console_text

    at = _spot(inventory, cell)
    with by_hand.found(at) as it:
        try:
            for piece in console_text.read(it.machine, follow=follow, raw=raw):
                sys.stdout.buffer.write(piece)
                sys.stdout.buffer.flush()
        except KeyboardInterrupt:
            if not follow:
                raise
        if follow:
            print(f"lab: the machine is {it.machine.state()}", file=sys.stderr)  # noqa: T201
    return ExitCode.AS_EXPECTED


@click.command()
@options.inventory
@options.cell_name
@click.option("--out", type=options.FOLDER, required=True, help="The file to write, a PNG.")
def screenshot(inventory: Path, cell: str, out: Path) -> ExitCode:
    """Take a picture of the display of a cell that is up."""
    from lab.runner import by_hand

    at = _spot(inventory, cell)
    with by_hand.found(at) as it:
        picture = by_hand.screenshot(at, it)
    try:
        out.write_bytes(picture)
    except OSError as reason:
        raise ConfigurationError(f"{out} cannot be written: {reason.strerror}") from reason
    print(out)  # noqa: T201
    return ExitCode.AS_EXPECTED


@click.command()
@options.inventory
@options.cell_name
def down(inventory: Path, cell: str) -> ExitCode:
    """Put a cell that is up away, with its disks.

    It is as if it had never been; a cell that is not up is no error.
    """
    from lab.runner import by_hand

    at = _spot(inventory, cell)
    was_up = by_hand.down(at)
    print(f"{at.cell} is down" if was_up else f"{at.cell} was not up")  # noqa: T201
    return ExitCode.AS_EXPECTED


@click.command()
@click.argument(
    "inventories",
    nargs=-1,
    type=options.FOLDER,
    help="Folders; without any, those that cells are up of, and inventories/local.",
)
@options.as_json
def ls(inventories: tuple[Path, ...], json: bool) -> ExitCode:
    """List the machines that are up now, by hand or in runs.

    "left over" is what no living run owns; `lab reap` destroys it.
    """
    from lab.runner import kept, listing

    kept_of = [_as_written(document.inventory) for _, document in kept.every()]
    local = [DEFAULT] if DEFAULT.is_dir() else []
    found = listing.every({path: read_inventory(path) for path in inventories or dict.fromkeys([*local, *kept_of])})
    if json:
        print_json(found.as_json())
    else:
        tables().machines(terminal(), found)
    return ExitCode.LAB_AT_FAULT if found.problems else ExitCode.AS_EXPECTED


def _as_written(inventory: Path) -> Path:
    here = Path.cwd()
    return inventory.relative_to(here) if inventory.is_relative_to(here) else inventory


def _spot(inventory: Path, cell: str) -> Spot:
    from lab.runner import by_hand

    return by_hand.spot(read_inventory(inventory), cell, str(inventory))


def _progress(*, quiet: bool) -> Callable[[str], None]:
    """Says on standard error what is done now, because bringing up takes its time."""

    def say(step: str) -> None:
        if not quiet:
            print(f"  {step} ...", file=sys.stderr, flush=True)  # noqa: T201

    return say
