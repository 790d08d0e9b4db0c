"""Defects of the hardware: the machine that QEMU makes is not the one that was asked for."""

from __future__ import annotations

from tests.defects.definition import Defect, Words


def _after(line: Words, option: str, value: str) -> list[str]:
    """The line with another value for the first such option."""
    at = list(line).index(option)
    return [*line[: at + 1], value, *line[at + 2 :]]


DEFECTS = (
    Defect(
        name="half-the-memory",
        what="The machine has 256 MiB, 512 were asked for.",
        breaks=("boot.core",),
        says="asked for 512 MiB, the guest has 2",
        line=lambda line: _after(line, "-m", "256M"),
        collateral={"memory.balloon": "the host cannot take memory down to a share of what was asked for"},
    ),
)
