"""The catalogue: which features exist, and which checks the suites hold for them; read, never imported.

`features.yaml` is parsed with its line numbers, the checks are found in the syntax trees of the suites' files, so
that planning runs nobody's code and costs milliseconds. A check's id is pytest's node id below the suites' folder.
"""

from __future__ import annotations

from pathlib import Path

from lab.catalogue.checks import read_checks
from lab.catalogue.features import read_features
from lab.catalogue.model import Catalogue, Check, Feature
from lab.errors import InventoryProblems

__all__ = ["Catalogue", "Check", "Feature", "load"]


def load(suites: Path) -> Catalogue:
    """Read `features.yaml` and every `*/<area>/test_*.py` below `suites`.

    Raises `InventoryProblems` with everything that is wrong, each with its file and line.
    """
    problems: list[str] = []
    features, drivers = read_features(suites / "features.yaml", problems)
    known = {feature.id: feature for feature in features}
    checks: list[Check] = []
    for path in sorted(suites.glob("*/*/test_*.py")):
        checks += read_checks(path, path.relative_to(suites).as_posix(), known, problems)
    if problems:
        raise InventoryProblems(problems)
    return Catalogue(tuple(features), tuple(sorted(checks, key=lambda check: check.id)), drivers)
