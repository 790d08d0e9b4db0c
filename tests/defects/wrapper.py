"""Stands in for QEMU's program: bends the command line as a defect says, then becomes QEMU.

python -m tests.defects.wrapper DEFECT PROGRAM WORDS...
"""

from __future__ import annotations

import os
import sys


def main(words: list[str]) -> None:
    """Never returns."""
    name, program, *line = words
    if line != ["--version"]:
        from tests.defects import catalogue

        line = bent(catalogue.by_name(name).line, line)
    os.execv(program, [program, *line])  # noqa: S606 - it becomes QEMU, as its caller expects


def bent(change: object, line: list[str]) -> list[str]:
    """The changed line. Raises `ValueError` when the change changed nothing: then the defect is not there."""
    if not callable(change):
        raise ValueError("this defect does not change QEMU's command line")
    changed: list[str] = change(line)
    if changed == line:
        raise ValueError("the defect found nothing to change in QEMU's command line")
    return changed


if __name__ == "__main__":
    main(sys.argv[1:])
