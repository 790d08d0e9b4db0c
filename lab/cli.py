"""The `lab` command: assembles the commands; the only place that turns an error into an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from lab.commands import by_hand, images, listing, machine, qualify, reports, runs
from lab.errors import ExitCode, LabError

SECTIONS = {
    "Look around": (runs.plan, listing.hosts, listing.guests, listing.features, machine.doctor),
    "Run": (runs.run, runs.cell, qualify.qualify, machine.reap),
    "Work in a cell by hand": (
        *(by_hand.up, by_hand.ssh, by_hand.console, by_hand.screenshot),
        *(by_hand.down, by_hand.ls),
    ),
    "Read what was found": (reports.report, reports.diff, reports.verdict, machine.triage),
    "Images": (images.images,),
}


class _Sections(click.Group):
    """Shows the commands in sections instead of by their letters."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        longest = max(map(len, self.commands))
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                rows = [(it.name or "", it.get_short_help_str(formatter.width)) for it in commands]
                # Filled up, so that the columns of all sections are in line.
                formatter.write_dl([(name.ljust(longest), said) for name, said in rows])


app = _Sections(
    name="lab",
    help="Provision guests on hypervisors, check that they work together, publish what really works.",
    context_settings={"max_content_width": 120},
    epilog="lab COMMAND --help says more. The first thing to try: lab doctor",
    commands=[command for commands in SECTIONS.values() for command in commands],
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    code: int
    try:
        code = _run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except click.ClickException as reason:
        where = reason.ctx.command_path if isinstance(reason, click.UsageError) and reason.ctx else app.name
        print(f"lab: {reason.format_message()}\n  -> {where} --help", file=sys.stderr)  # noqa: T201
        code = ExitCode.USAGE
    except LabError as reason:
        from lab.results.plain import visible  # an error may quote a guest or a hypervisor

        print(f"lab: {visible(str(reason))}", file=sys.stderr)  # noqa: T201
        code = reason.exit_code
    except KeyboardInterrupt:
        print("lab: interrupted; nothing was left behind.", file=sys.stderr)  # noqa: T201
        code = ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has seen enough. Keep the interpreter from failing once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = ExitCode.AS_EXPECTED
    sys.exit(code)


def _run(arguments: Sequence[str]) -> int:
    # Not `app.main`, which turns Ctrl-C and a closed pipe into exceptions and exit codes of its own.
    try:
        with app.make_context("lab", list(arguments)) as context:
            answer: ExitCode = app.invoke(context)
            return answer
    except click.exceptions.NoArgsIsHelpError as reason:
        click.echo(reason.format_message())
        return ExitCode.AS_EXPECTED
    except click.exceptions.Exit as reason:  # --help
        return reason.exit_code
