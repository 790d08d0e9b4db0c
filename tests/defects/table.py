"""The page that says which defects were caught, which were missed, and what cried out without cause."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from lab import catalogue as suites_catalogue
from tests.defects import catalogue, sweep, trial
from tests.defects.definition import Defect
from tests.defects.judging import Result

PAGE = trial.ROOT / "docs" / "reference" / "defects.md"
SUITES = trial.ROOT / "suites"


def gather(places: Iterable[Path]) -> dict[str, Result]:
    """The last result of each defect: of all checks where there is one, else of the checks near it."""
    found = sweep.read_results()
    for scope in ("near", "all"):
        for place in places:
            for defect in catalogue.DEFECTS:
                file = sweep.kept(defect, place, scope)
                if file.exists():
                    found[defect.name] = Result.from_json(json.loads(file.read_text()))
    return {defect.name: found[defect.name] for defect in catalogue.DEFECTS if defect.name in found}


def write(results: Mapping[str, Result]) -> None:
    """Keep the results, with the checks that there were, and write the page."""
    known = suites_catalogue.load(SUITES)
    checks = {it.id: [check.id for check in known.checks_of(it.id)] for it in known.features if known.checks_of(it.id)}
    content = {
        "checks": checks,
        "results": {name: result.as_json() for name, result in results.items()},
    }
    sweep.RESULTS.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(page())


def page() -> str:
    """The whole page, from the results that are kept."""
    results = sweep.read_results()
    kept = json.loads(sweep.RESULTS.read_text())
    checks: dict[str, list[str]] = kept["checks"]
    rows = [_row(defect, results.get(defect.name)) for defect in catalogue.DEFECTS]
    lines = [
        "# Seeded defects",
        "",
        "<!-- Written by `python -m tests.defects table` from tests/defects/results.json. Do not change it here. -->",
        "",
        "Each is a small change of a guest or its machine, made in a real guest by code that knows no check;",
        "then checks run as in any run: those of level smoke and all of the features concerned (the column *checks*),",
        "so that a false alarm among the others would not have been seen.",
        "*Caught*: the feature that must fail failed, as the product's fault, with a reason that names the defect.",
        "*With it*: another failure that follows from the defect, as its definition says.",
        "*False alarm*: anything else that failed or broke.",
        "`python -m tests.defects try` makes the results anew, with `--checks all` of every check, which takes hours;",
        "`python -m tests.defects table` makes this page. tests/defects/results.json says which revision each is of.",
        "[Guests without defect](soak.md) are the other half.",
        "",
        _summary(results),
        "",
        "| defect | what is wrong | where | must fail | caught by | missed | with it | false alarms | checks |",
        "|---|---|---|---|---|---|---|---|---|",
        *rows,
        "",
        "*Checks*: how many passed or failed, of those that were tried.",
        "",
        "## Checks that no defect turned red",
        "",
        *_untouched(results, checks),
    ]
    return "\n".join(lines) + "\n"


def _summary(results: Mapping[str, Result]) -> str:
    with_feature = [defect for defect in catalogue.DEFECTS if defect.breaks]
    tried = [results[defect.name] for defect in with_feature if defect.name in results]
    caught = sum(result.caught_all for result in tried)
    alarms = sum(len(result.false_alarms) for result in results.values())
    nobody = len(catalogue.DEFECTS) - len(with_feature)
    return (
        f"**{len(catalogue.DEFECTS)} defects, {len(results)} of them tried: {caught} of {len(tried)} caught, "
        f"{len(tried) - caught} missed, {alarms} false alarms; for {nobody} more the catalogue has no feature.**"
    )


def _row(defect: Defect, result: Result | None) -> str:
    if result is None:
        cells = ["not tried", "", "", "", ""]
    else:
        missed = ", ".join(f"`{feature}`" for feature in result.missed)
        missed = missed or (f"nobody could: {defect.nobody}" if not defect.breaks else "")
        alarms = ", ".join(_short(check) for check in result.false_alarms)
        cells = [
            ", ".join(_short(check) for check in result.caught),
            missed,
            ", ".join(_short(check) for check in result.collateral),
            alarms,
            f"{result.judged} of {result.checks}",
        ]
    breaks = ", ".join(f"`{feature}`" for feature in defect.breaks)
    row = (f"`{defect.name}`", f"{defect.what} *{defect.way}*", f"`{defect.cell}`", breaks, *cells)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


def _short(check: str) -> str:
    return f"`{check.rpartition('::test_')[2]}`"


def _untouched(results: Mapping[str, Result], checks: Mapping[str, list[str]]) -> list[str]:
    red = {check for result in results.values() for check in (*result.caught, *result.collateral)}
    lines = []
    for feature, every in checks.items():
        green = [check for check in every if check not in red]
        if green:
            lines.append(f"- `{feature}`: {', '.join(_short(check) for check in green)}")
    total = [check for every in checks.values() for check in every]
    return [f"{sum(check in red for check in total)} of {len(total)} checks were seen red. Green so far:", "", *lines]
