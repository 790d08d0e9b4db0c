"""The `lab` command: assembles the commands; the only place that turns an error into an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from lab.commands import images, listing, machine, reports, runs
from lab.errors import ExitCode, LabError

app = App(
    name="lab",
    help="Provision guests on hypervisors, check that they work together, publish what really works.",
    help_format="plaintext",
    version_flags=[],
)
for _command in (
    *(machine.doctor, machine.triage, machine.reap),
    *(runs.plan, runs.run, runs.cell),
    *(reports.report, reports.diff, reports.verdict),
    *(listing.hosts, listing.guests, listing.features),
):
    app.command(_command)

_images = App(name="images", help="Images to start guests from: list, build, verify.")
_images.command(images.list_images, name="list")
_images.command(images.build_image, name="build")
_images.command(images.verify_images, name="verify")
app.command(_images)


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
