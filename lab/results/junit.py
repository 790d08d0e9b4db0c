"""JUnit XML of a run: one suite for each cell and realness, one case for each check.

A product's failure is `<failure>`, a fault of the lab (and a planned check that was never run) is `<error>`,
everything else that did not pass is `<skipped>` with its reason. With several attempts the worst judgement
counts, so that a retry hides nothing. The elements are those that Jenkins and GitLab read.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path

from lab.contracts import Realness
from lab.results import lines
from lab.results.documents import CellDocument
from lab.results.judgement import Judgement, of_attempts, of_record
from lab.results.plain import one_line, visible
from lab.results.record import Outcome, Record
from lab.results.store import CellResult, Run


def write(run: Run) -> Path:
    """Write `junit.xml` into the run's directory; return its path. Raises `LabDiskFull`, `RunError`."""
    text = document(run)
    lines.replace(run.layout.junit, text)
    return run.layout.junit


def document(run: Run) -> str:
    """The whole document as text."""
    suites = [_suite(run, group) for group in _groups(run)]
    root = ET.Element("testsuites", {"name": f"Interop Lab {run.id}", **_sums(suites)})
    root.extend(suites)
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


@dataclass(frozen=True)
class _Group:
    """What becomes one suite."""

    cell: str
    realness: str
    document: CellDocument | None
    records: tuple[Record, ...]
    never_run: tuple[str, ...]  # planned checks without a record


def _groups(run: Run) -> list[_Group]:
    planned = {(cell.cell, cell.realness): cell.checks for cell in run.planned() if cell.excluded is None}
    groups = [group for result in run.cells() for group in _of_cell(result, planned)]
    seen = {(group.cell, group.realness) for group in groups}
    groups += [
        _Group(cell, realness, None, (), checks)
        for (cell, realness), checks in planned.items()
        if (cell, realness) not in seen and checks
    ]
    return sorted(groups, key=lambda group: (group.cell, group.realness))


def _of_cell(result: CellResult, planned: dict[tuple[str, str], tuple[str, ...]]) -> list[_Group]:
    found = []
    for realness in Realness:
        attempts = [attempt for attempt in result.attempts if attempt.realness is realness]
        if not attempts:
            continue
        records = tuple(record for attempt in attempts for record in attempt.records)
        done = {record.check for record in records}
        missing = tuple(check for check in planned.get((result.cell.name, realness.value), ()) if check not in done)
        found.append(_Group(result.cell.name, realness.value, attempts[-1].document, records, missing))
    return found


def _suite(run: Run, group: _Group) -> ET.Element:
    by_check: dict[str, list[Record]] = {}
    for record in group.records:
        by_check.setdefault(record.check, []).append(record)
    cases = [_case(group.cell, records) for records in by_check.values()]
    cases += [_never_run(group.cell, check) for check in group.never_run]
    started = min((record.started for record in group.records), default=run.document.started)
    suite = ET.Element(
        "testsuite",
        {
            "name": visible(group.cell),
            "timestamp": started.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S"),
            "hostname": visible(group.cell.partition("/")[0]),
            **_counts(cases),
        },
    )
    properties = ET.SubElement(suite, "properties")
    for name, value in _properties(run, group).items():
        ET.SubElement(properties, "property", {"name": name, "value": one_line(value)})
    suite.extend(cases)
    return suite


def _case(cell: str, records: Sequence[Record]) -> ET.Element:
    judged = of_attempts(records)
    record = judged.decided_by or records[-1]
    case = ET.Element(
        "testcase",
        {
            "classname": visible(f"{cell}/{record.feature}"),
            "name": visible(record.check),
            "time": f"{record.seconds:.3f}",
        },
    )
    kind = _kind(record)
    if kind is not None:
        words = {"message": one_line(record.reason or record.outcome.value)}
        if kind != "skipped":
            words["type"] = f"{record.outcome.value}.{record.blame.value}"
        ET.SubElement(case, kind, words).text = visible(record.reason)
    if len(records) > 1:
        told = [f"attempt {each.attempt}: {each.outcome.value} {one_line(each.reason)}".rstrip() for each in records]
        ET.SubElement(case, "system-out").text = "\n".join(["flaky" if judged.flaky else "not flaky", *told])
    return case


def _kind(record: Record) -> str | None:
    judgement = of_record(record)
    if judgement is Judgement.PASSED:
        return None
    if judgement is Judgement.FAILED:
        return "failure"
    if record.outcome in (Outcome.BROKEN, Outcome.FAILED):
        return "error"
    return "skipped"


def _never_run(cell: str, check: str) -> ET.Element:
    case = ET.Element("testcase", {"classname": visible(cell), "name": visible(check), "time": "0.000"})
    ET.SubElement(case, "error", {"message": "planned, and never run", "type": "not_run.lab"})
    return case


def _properties(run: Run, group: _Group) -> dict[str, str]:
    found = {"run": run.id, "lab.version": run.document.version, "realness": group.realness}
    document = group.document
    if document is None:
        return found
    if document.host:
        host = document.host
        found |= {
            "hypervisor": host.product,
            "hypervisor.version": host.version,
            "hypervisor.build": host.build,
            "hypervisor.accelerator": host.accelerator,
            "hypervisor.cpu_model": host.cpu_model,
        }
    found |= dict(_plain_facts("guest", document.guest or {}))
    if document.image:
        found |= {"image": document.image.name, "image.digest": document.image.digest}
    found["command"] = document.command
    return {visible(name): value for name, value in found.items() if value}


def _plain_facts(name: str, value: object) -> Iterator[tuple[str, str]]:
    """Texts and numbers of nested facts, each with its whole name; lists are too long for properties."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _plain_facts(f"{name}.{key}", inner)
    elif isinstance(value, str | int | float):
        yield name, str(value)


def _counts(cases: Sequence[ET.Element]) -> dict[str, str]:
    def having(tag: str) -> int:
        return sum(case.find(tag) is not None for case in cases)

    seconds = sum(float(case.get("time", "0")) for case in cases)
    return {
        "tests": str(len(cases)),
        "failures": str(having("failure")),
        "errors": str(having("error")),
        "skipped": str(having("skipped")),
        "time": f"{seconds:.3f}",
    }


def _sums(suites: Sequence[ET.Element]) -> dict[str, str]:
    whole = {key: str(sum(int(suite.get(key, "0")) for suite in suites)) for key in ("tests", "failures", "errors")}
    return {**whole, "time": f"{sum(float(suite.get('time', '0')) for suite in suites):.3f}"}
