"""One line of the table of benchmarks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """What was measured, beside what it was measured against and what it may be."""

    what: str
    measured: str  # with its unit
    ratio: str  # to something measured in the same run, and what that is
    limit: str
    holds: bool
    load: str = ""  # of the machine while it was measured

    def cells(self) -> tuple[str, ...]:
        """As it stands in the table."""
        return self.what, self.measured, self.ratio, self.limit, "yes" if self.holds else "**no**", self.load
