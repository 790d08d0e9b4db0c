"""What a seeded defect is: a small change of guest or machine, and the features that it must bring down.

Nothing here knows a check. A defect names features of the catalogue, and words that a true reason contains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lab.contracts import Cell, Hypervisor, Image, Machine, Profile

if TYPE_CHECKING:
    from lab.guests.guest import Guest

Words = Sequence[str]


@dataclass(frozen=True)
class Defect:
    """One small change. Exactly one of the ways, seldom two, says how it is made."""

    name: str  # small letters and dashes
    what: str  # one sentence: what is wrong with this machine or guest
    breaks: tuple[str, ...]  # the features that must fail; empty when the catalogue has none that could notice
    says: str = ""  # a regular expression, case ignored: at least one reason of each broken feature contains it
    cell: str = "qemu/jeos/pc-bios"
    collateral: Mapping[str, str] = field(default_factory=dict)  # features that may fail as well: why
    nobody: str = ""  # why no feature of the catalogue could notice, when `breaks` is empty
    profile: Profile | None = None  # hardware in place of the cell's profile
    boot_timeout_s: float = 0.0  # in place of the guest's, for what never comes up or comes up slowly

    # The ways. All are applied to every machine that the trial makes.
    script: str = ""  # run as root in the guest before the checks see it
    in_guest: Callable[[Guest], None] | None = None  # the same, where a script is not enough
    line: Callable[[Words], list[str]] | None = None  # from QEMU's command line to the one that is started
    image: Callable[[Image, Path], Image] | None = None  # another image, made in that folder
    machine: Callable[[Machine], None] | None = None  # bends the driver's object
    hypervisor: Callable[[Hypervisor], None] | None = None  # bends the connected host

    @property
    def where(self) -> Cell:
        return Cell.parse(self.cell)

    @property
    def needs_boot(self) -> bool:
        """Whether it must be there from power-on, so that a restored copy would not have it."""
        return self.line is not None or self.image is not None or self.profile is not None

    @property
    def way(self) -> str:
        """How it is made, in a word for the table."""
        ways = {
            "in the guest": self.script or self.in_guest,
            "QEMU's command line": self.line,
            "the image": self.image,
            "the driver": self.machine or self.hypervisor,
        }
        return " and ".join(word for word, made in ways.items() if made)


def replace_method(thing: object, name: str, function: Callable[..., object]) -> None:
    """Let one object answer otherwise than its class says. Raises `AttributeError` for what it does not have."""
    if not callable(getattr(thing, name)):
        raise AttributeError(f"{type(thing).__name__}.{name} is no method")
    setattr(thing, name, function)
