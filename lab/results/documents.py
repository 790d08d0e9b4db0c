"""The files of a run beside its records: run.json, cell.json, journal.jsonl; each a model.

Unknown keys are kept, not refused: a later version may add keys, and its runs must stay readable.
"""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticSerializationError

from lab.contracts import Realness
from lab.errors import Blame
from lab.results.record import SCHEMA, Number, Outcome, Reason


class Document(BaseModel):
    """Data in a file of a run that others may extend."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, populate_by_name=True)

    def text(self) -> str:
        """The document as JSON for people to read."""
        return self._encodable().model_dump_json(by_alias=True, indent=2) + "\n"

    def line(self) -> str:
        """The document as one line of JSON, without its newline."""
        return self._encodable().model_dump_json(by_alias=True, exclude_none=True)

    def _encodable(self) -> Self:
        """This document, or a copy of it without the characters that UTF-8 cannot hold (a guest may send any)."""
        try:
            self.model_dump_json()
        except PydanticSerializationError:
            return self.model_validate(_encodable(self.model_dump(by_alias=True)))
        return self


def _encodable(value: Any) -> Any:
    if isinstance(value, StrEnum):
        return value
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {_encodable(key): _encodable(inner) for key, inner in value.items()}
    return [_encodable(inner) for inner in value] if isinstance(value, list | tuple) else value


class RunDocument(Document):
    """run.json: what was run, when, where, and how it ended."""

    schema_version: Literal[1] = Field(default=SCHEMA, alias="schema")
    run: str
    started: datetime
    finished: datetime | None = None  # None: it still runs, or it was killed
    inventory: str
    command: str
    version: str  # of the lab
    machine: dict[str, Any] = {}
    exit_code: int | None = None
    outcomes: dict[Outcome, int] = {}


class KnownIssue(Document):
    """An entry of `known_issues` in a matrix: it explains a failure, it never hides one."""

    cell: str = "*"
    feature: str = "*"
    check: str = "*"
    reason: str
    owner: str = ""
    expires: date | None = None

    def covers(self, cell: str, feature: str, check: str, on: date) -> bool:
        """Whether it explains that failure on that day."""
        if self.expires is not None and on > self.expires:
            return False
        pairs = ((cell, self.cell), (feature, self.feature), (check, self.check))
        return all(fnmatchcase(name, pattern) for name, pattern in pairs)


class HostDocument(Document):
    """What the connected host was."""

    product: str = ""
    version: str = ""
    build: str = ""
    accelerator: str = ""
    cpu_model: str = ""
    details: dict[str, Any] = {}


class ImageDocument(Document):
    """What the guest was started from."""

    name: str = ""
    digest: str = ""
    origin: str = ""


class CellDocument(Document):
    """cell.json: the circumstances of one attempt at one cell, and how it ended."""

    schema_version: Literal[1] = Field(default=SCHEMA, alias="schema")
    run: str
    cell: str
    attempt: int
    realness: Realness
    warm: list[bool] = []
    host: HostDocument | None = None
    guest: dict[str, Any] | None = None
    image: ImageDocument | None = None
    profile: dict[str, Any] = {}
    phases: dict[str, Number] = {}  # seconds, in the order in which they happened
    outcome: Outcome | None = None  # None: it never ended
    blame: Blame = Blame.NOBODY
    reason: Reason = ""
    command: str = ""
    known_issues: list[KnownIssue] = []


class JournalEvent(Document):
    """A line of journal.jsonl."""

    time: datetime
    event: Literal["run-started", "cell-started", "cell-phase", "cell-finished", "interrupted", "run-finished"]
    cell: str | None = None
    attempt: int | None = None
    phase: str | None = None
    outcome: Outcome | None = None
    blame: Blame | None = None
    reason: Reason | None = None
    seconds: Number | None = None
