"""The evidence page of one attempt at one cell: logs, versions, timing, and how to do it again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lab.results import layout
from lab.results.plain import console, one_line, visible
from lab.results.store import Attempt
from lab.site import excerpts, phases, rows, tables, words
from lab.site.engine import Pages, safe
from lab.site.names import evidence_path, root_of
from lab.site.view import AttemptView, CellView

MOST_FILES = 50
LARGEST_FILE = 4 << 20
LONGEST_REPRODUCE = 16 << 10
MOST_PARTS = 60  # of a list of facts
# What a browser shows as a picture; everything else is handed out as plain text, whatever it calls itself.
_PICTURES = {".png"}
Pairs = list[tuple[str, str]]


def write(pages: Pages, cell: CellView, view: AttemptView) -> None:
    """Write the page with copies of its logs beside it. Raises `OSError`."""
    attempt, document = view.attempt, view.document
    number = attempt.layout.number
    path = evidence_path(view.run.id, cell.cell.name, number)
    writer = _Beside(pages, path)
    logs = [
        ("Console", "console", *writer.log(attempt.layout.console, "console")),
        ("Kernel log", "kernel", *writer.log(attempt.layout.kernel_log, "kernel")),
        ("Lab's log", "lab", *writer.log(attempt.layout.cell_log, "lab")),
    ]
    files = writer.files(view, attempt)
    timed = document.phases if document else {}
    state = attempt_mark(attempt)
    pages.page(
        path,
        "evidence.html.j2",
        {
            "title": f"{cell.cell.name}, attempt {number}",
            "view": view,
            "cell": cell.cell.name,
            "cell_path": cell.path,
            "realness": cell.realness,
            "number": number,
            "state": state,
            "blame": document.blame.value if document and document.blame.value != "none" else "",
            "reason": one_line(document.reason, at_most=rows.LONGEST_REASON) if document else "",
            "rows": safe(_records(attempt, files, root_of(path))),
            "phases": safe(phases.picture(timed)) if timed else None,
            "logs": logs,
            "facts": [(title, safe(tables.facts(found))) for title, found in _facts(attempt)],
            "command": visible(document.command) if document else "",
            "reproduce": writer.text(attempt.layout.reproduce),
            "files": list(files.values()),
        },
    )


class _Beside:
    """The files that lie beside an evidence page and bear its name."""

    def __init__(self, pages: Pages, path: str) -> None:
        self._pages = pages
        self._stem = path.removesuffix(".html")

    def _target(self, name: str) -> Path:
        return self._pages.target(f"{self._stem}-{name}")

    def _href(self, name: str) -> str:
        return quote(f"{self._stem.rpartition('/')[2]}-{name}")

    def log(self, source: Path, name: str) -> tuple[excerpts.Excerpt | None, str]:
        """An excerpt of a log and the link to its copy."""
        excerpt = excerpts.read(source)
        if excerpt is None or excerpt.size == 0:
            return None, ""
        excerpts.copy(source, self._target(f"{name}.txt"))
        return excerpt, self._href(f"{name}.txt")

    def text(self, source: Path) -> str:
        try:
            with source.open("rb") as file:
                return console(file.read(LONGEST_REPRODUCE)).strip("\n")
        except FileNotFoundError:
            return ""

    def files(self, view: AttemptView, attempt: Attempt) -> dict[str, tuple[str, str]]:
        """Copies of what the checks kept: path below the run -> (name, link)."""
        root = view.run.layout.root
        named = [relative for record in attempt.records for relative in record.evidence]
        if attempt.layout.evidence.is_dir():
            found = sorted(path for path in attempt.layout.evidence.rglob("*") if path.is_file())
            named += [path.relative_to(root).as_posix() for path in found[:MOST_FILES]]
        copied: dict[str, tuple[str, str]] = {}
        for relative in dict.fromkeys(named):
            path = layout.inside(root, relative)
            if path is None or path.stat().st_size > LARGEST_FILE or len(copied) == MOST_FILES:
                continue
            suffix = path.suffix if path.suffix in _PICTURES else ".txt"
            name = f"file-{len(copied) + 1}{suffix}"
            content = path.read_bytes()
            self._target(name).write_bytes(content if suffix in _PICTURES else console(content).encode())
            copied[relative] = (one_line(path.name, at_most=80), self._href(name))
        return copied


def attempt_mark(attempt: Attempt) -> words.Mark:
    """How an attempt ended."""
    document = attempt.document
    if document is None:
        return words.RUNNING
    return words.OUTCOMES[document.outcome] if document.outcome else words.NO_DATA


def _records(attempt: Attempt, files: Mapping[str, tuple[str, str]], root: str) -> str:
    shown = [(record.feature, rows.record_row(record)) for record in attempt.records]
    kept = {
        visible(record.check): [files[relative] for relative in record.evidence if relative in files]
        for record in attempt.records
        if record.evidence
    }
    return tables.records(shown, kept, root)


def _facts(attempt: Attempt) -> list[tuple[str, Pairs]]:
    document = attempt.document
    if document is None:
        return [("Host", []), ("Guest", [])]
    host = document.host.model_dump() if document.host else {}
    return [
        ("Host", pairs(host)),
        ("Guest", pairs(document.guest or {})),
        ("Image", pairs(document.image.model_dump() if document.image else {})),
        ("Profile", pairs(document.profile)),
        ("Attempt", pairs({"schema": document.schema_version, "warm": document.warm, **(document.model_extra or {})})),
    ]


def pairs(facts: Mapping[str, Any]) -> Pairs:
    """Facts as names and values, nested ones with both names, empty ones left out."""
    return list(_pairs(facts, "", 0))


def _pairs(facts: Mapping[str, Any], before: str, depth: int) -> Iterable[tuple[str, str]]:
    for key, value in facts.items():
        name = one_line(f"{before}{key}".replace("_", " "), at_most=80)
        if isinstance(value, dict) and depth < 3:
            yield from _pairs(value, f"{name} · ", depth + 1)
        elif isinstance(value, list | tuple) and value:
            yield name, one_line("; ".join(_flat(part) for part in value[:MOST_PARTS]), at_most=2000)
        elif value is not None and value not in ("", [], {}):
            yield name, one_line(str(value), at_most=1000)


def _flat(part: object) -> str:
    """An entry of a list of facts: of an object its values that are there, with their names where needed."""
    if not isinstance(part, dict):
        return str(part)
    told = [(key, value) for key, value in part.items() if value not in (None, "", [], {})]
    return ", ".join(str(value) if isinstance(value, str) else f"{key} {value}" for key, value in told)
