"""All seeded defects, in the order in which the table shows them."""

from __future__ import annotations

from tests.defects import agents, boots, drivers, guests, hardware, moves, on_xen
from tests.defects.definition import Defect

DEFECTS: tuple[Defect, ...] = (
    *boots.DEFECTS,
    *guests.DEFECTS,
    *hardware.DEFECTS,
    *drivers.DEFECTS,
    *agents.DEFECTS,
    *moves.DEFECTS,
    *on_xen.DEFECTS,
)


def by_name(name: str) -> Defect:
    """Raises `KeyError` for an unknown name."""
    return {defect.name: defect for defect in DEFECTS}[name]
