"""What a catalogue holds: features, checks, and which pairs a feature makes sense for."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from lab.contracts import Capability

LEVELS = ("smoke", "conformance", "performance")
"""From the quickest to the longest; `smoke` checks belong to conformance runs as well."""

FAMILIES = ("linux", "windows", "solaris")
HYPERVISORS = ("hyperv", "vmware", "xen", "kvm", "qemu", "uml")
TIMEOUT_S = 120.0
"""Limit of a check that names none."""


@dataclass(frozen=True)
class Feature:
    """One row of the matrix."""

    id: str
    area: str
    meaning: str
    families: tuple[str, ...]  # guest families that can have it at all
    hypervisors: tuple[str, ...]  # kinds of hypervisor that can offer it at all


@dataclass(frozen=True)
class Check:
    """One pytest test of the suites, as its decorator describes it."""

    id: str  # "conformance/boot/test_core.py::test_x"
    feature: str
    level: str = "conformance"
    defect: bool = False  # a seeded defect proves that this check can fail
    families: tuple[str, ...] = ("linux",)
    cold: bool = False
    needs: frozenset[Capability] = frozenset()
    machines: int = 1  # how many run together
    spoils: bool = False  # the machine is of no use for other checks afterwards
    timeout_s: float = TIMEOUT_S
    meaning: str = ""  # the first paragraph of its docstring


@dataclass(frozen=True)
class Catalogue:
    """All features in the order of their file, all checks sorted by id."""

    features: tuple[Feature, ...]
    checks: tuple[Check, ...]
    drivers: Mapping[str, str] = field(default_factory=dict)  # driver -> kind of hypervisor

    @cached_property
    def by_id(self) -> Mapping[str, Feature]:
        return {feature.id: feature for feature in self.features}

    @cached_property
    def checks_by_id(self) -> Mapping[str, Check]:
        return {check.id: check for check in self.checks}

    def checks_of(self, feature: str) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.feature == feature)

    def as_json(self) -> list[dict[str, object]]:
        """The document of `lab features --json`."""
        return [
            {
                "id": feature.id,
                "area": feature.area,
                "meaning": feature.meaning,
                "families": list(feature.families),
                "hypervisors": list(feature.hypervisors),
                "checks": [
                    {"id": check.id, "level": check.level, "defect": check.defect}
                    for check in self.checks_of(feature.id)
                ],
            }
            for feature in self.features
        ]

    def not_applicable(self, check: Check, *, family: str, driver: str) -> str | None:
        """Why this pair cannot have the check's feature at all, or `None`.

        A driver without an entry in `drivers` is not judged: what its machines can do decides.
        """
        feature = self.by_id[check.feature]
        if family not in feature.families:
            return f"{feature.id} is not a feature of {family} guests"
        if family not in check.families:
            return f"this check does not know {family} guests"
        kind = self.drivers.get(driver)
        if kind is not None and kind not in feature.hypervisors:
            return f"{feature.id} is not a feature of this kind of hypervisor ({kind})"
        return None


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """A suggestion to put behind an unknown word, with a leading space, or nothing."""
    close = difflib.get_close_matches(word, known, 1)
    return f' (did you mean "{close[0]}"?)' if close else ""
