"""Allure results of a run: one result for each record (every attempt), one container for each attempt at a cell.

Allure knows neither realness nor blame, so realness is the outermost suite and part of what makes a history,
and a fault of the lab is "broken". Ids are made from names: writing twice gives the same files.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from lab.errors import LabDiskFull, RunError
from lab.process import disk_full_or
from lab.results import plain
from lab.results.documents import CellDocument
from lab.results.judgement import Judgement, of_attempts, of_record
from lab.results.layout import inside
from lab.results.record import Outcome, Record
from lab.results.store import Attempt, CellResult, Run

_NAMESPACE = uuid.UUID("3f1c7a8e-5b0d-5e44-9a52-6f1f7d2b9a10")
CONSOLE_TAIL = 64 << 10
LARGEST_ATTACHMENT = 256 << 10
_TYPES = {".txt": "text/plain", ".log": "text/plain", ".json": "application/json", ".png": "image/png"}
_PICTURES = frozenset({".png"})


def write(run: Run) -> Path:
    """Write `allure-results/` into the run's directory; return its path.

    An interrupted or failed write leaves the earlier results. Raises `LabDiskFull`, `RunError`.
    """
    folder = run.layout.allure_results
    draft = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        _Writer(run, draft).write()
        if folder.exists():
            shutil.rmtree(folder)
        draft.rename(folder)
    except OSError as reason:
        shutil.rmtree(draft, ignore_errors=True)
        found = disk_full_or(reason, f"writing {folder}")
        raise found if isinstance(found, LabDiskFull) else RunError(f"{folder}: {reason}") from reason
    return folder


class _Writer:
    def __init__(self, run: Run, folder: Path) -> None:
        from allure_commons import model2

        self._model = model2
        self._run = run
        self._folder = folder

    def write(self) -> None:
        for cell in self._run.cells():
            self._cell(cell)
        self._environment()
        self._categories()

    def _cell(self, cell: CellResult) -> None:
        by_check: dict[tuple[str, str], list[Record]] = {}
        for record in cell.records:
            by_check.setdefault((record.realness.value, record.check), []).append(record)
        flaky = {key for key, records in by_check.items() if of_attempts(records).flaky}
        for attempt in cell.attempts:
            children = [
                self._result(record, is_flaky=(record.realness.value, record.check) in flaky)
                for record in attempt.records
            ]
            self._container(attempt, children)

    def _result(self, record: Record, *, is_flaky: bool) -> str:
        model = self._model
        name = self._id("result", record.cell, record.check, str(record.attempt))
        started = round(record.started.timestamp() * 1000)
        message = plain.one_line(record.reason)
        history = uuid.uuid5(_NAMESPACE, "\0".join((record.realness.value, record.cell, record.check))).hex
        result = model.TestResult(
            uuid=name,
            historyId=history,
            testCaseId=uuid.uuid5(_NAMESPACE, record.check).hex,
            fullName=plain.visible(f"{record.cell} {record.check}"),
            name=plain.visible(record.check.rpartition("::")[2]),
            status=_status(record),
            statusDetails=model.StatusDetails(message=message or None, trace=None, flaky=is_flaky or None),
            stage="finished",
            description=plain.visible(f"{record.outcome.value}; blame: {record.blame.value}\n\n{record.reason}"),
            labels=[model.Label(key, plain.visible(value)) for key, value in _labels(record)],
            parameters=[model.Parameter("cell", record.cell), model.Parameter("realness", record.realness.value)],
            attachments=self._evidence(record),
            start=started,
            stop=started + round(timedelta(seconds=record.seconds) / timedelta(milliseconds=1)),
        )
        self._item(result.file_pattern, name, result)
        return name

    def _evidence(self, record: Record) -> list[Any]:
        found = []
        for position, relative in enumerate(record.evidence):
            path = inside(self._run.layout.root, relative)
            kind = _TYPES.get(path.suffix) if path else None
            if path is None or kind is None or path.stat().st_size > LARGEST_ATTACHMENT:
                continue
            key = self._id("evidence", record.cell, record.check, f"{record.attempt}/{position}")
            content = path.read_bytes()
            if path.suffix not in _PICTURES:
                content = plain.console(content).encode()
            found.append(self._attachment(plain.visible(path.name), key, (content, kind, path.suffix)))
        return found

    def _container(self, attempt: Attempt, children: Sequence[str]) -> None:
        if not children:
            return
        model, layout = self._model, attempt.layout
        cell, number = layout.cell.name, str(layout.number)
        files = []
        for path in (layout.console, layout.reproduce):
            data = _tail(path, CONSOLE_TAIL)
            if data:
                text = plain.console(data).encode()
                files.append(
                    self._attachment(path.name, self._id(path.name, cell, number), (text, "text/plain", ".txt"))
                )
        setup = model.TestBeforeResult(
            name=plain.visible(f"bring-up of {cell}, attempt {number}"), status="passed", attachments=files
        )
        name = self._id("container", cell, number)
        container = model.TestResultContainer(uuid=name, name=cell, children=list(children), befores=[setup])
        self._item(container.file_pattern, name, container)

    def _attachment(self, name: str, key: str, content: tuple[bytes, str, str]) -> Any:
        data, kind, suffix = content
        source = f"{key}-attachment{suffix}"
        (self._folder / source).write_bytes(data)
        return self._model.Attachment(name=name, source=source, type=kind)

    def _item(self, pattern: str, name: str, item: Any) -> None:
        from attr import asdict

        data = asdict(item, filter=lambda _, value: bool(value) or value is False)
        path = self._folder / pattern.format(prefix=name)
        path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")

    def _id(self, *parts: str) -> str:
        return str(uuid.uuid5(_NAMESPACE, "\0".join((self._run.id, *parts))))

    def _environment(self) -> None:
        document = self._run.document
        facts = {"run": self._run.id, "lab": document.version, "inventory": document.inventory}
        documents = [attempt.document for cell in self._run.cells() for attempt in cell.attempts if attempt.document]
        facts["realness"] = ", ".join(sorted({found.realness.value for found in documents}))
        for found in documents:
            facts[f"host.{found.cell.partition('/')[0]}"] = _host(found)
        lines = [f"{key}={_property(value)}" for key, value in facts.items()]
        (self._folder / "environment.properties").write_text("\n".join(lines) + "\n", encoding="ascii")

    def _categories(self) -> None:
        categories = [
            {"name": "The product failed", "matchedStatuses": ["failed"]},
            {"name": "The lab was at fault", "matchedStatuses": ["broken"]},
            {"name": "Blocked, unsupported, not applicable or left out", "matchedStatuses": ["skipped"]},
        ]
        (self._folder / "categories.json").write_text(json.dumps(categories), encoding="utf-8")


def _status(record: Record) -> str:
    judgement = of_record(record)
    if judgement is Judgement.PASSED:
        return "passed"
    if judgement is Judgement.FAILED:
        return "failed"
    return "broken" if record.outcome in (Outcome.BROKEN, Outcome.FAILED) else "skipped"


def _labels(record: Record) -> list[tuple[str, str]]:
    host, guest, profile = record.cell.split("/")
    return [
        ("parentSuite", record.realness.value),
        ("suite", record.cell),
        ("subSuite", record.feature),
        ("feature", record.feature),
        ("realness", record.realness.value),
        ("blame", record.blame.value),
        ("host", host),
        ("guest", guest),
        ("profile", profile),
        ("tag", record.realness.value),
        ("tag", record.outcome.value),
        ("framework", "interop-lab"),
    ]


def _host(document: CellDocument) -> str:
    host = document.host
    if host is None:
        return document.realness.value
    words = (host.product, host.version, host.accelerator, f"({document.realness.value})")
    return " ".join(word for word in words if word)


def _property(value: str) -> str:
    """A value for a .properties file (java.util.Properties.load): one line, ASCII, backslashes doubled."""
    flat = plain.one_line(value).replace("\\", "\\\\")
    units = flat.encode("utf-16-be")
    codes = [int.from_bytes(units[at : at + 2], "big") for at in range(0, len(units), 2)]
    return "".join(chr(code) if code < 0x7F else f"\\u{code:04x}" for code in codes)


def _tail(path: Path, at_most: int) -> bytes:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - at_most))
            return file.read(at_most)
    except FileNotFoundError:
        return b""
