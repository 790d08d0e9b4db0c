"""Made-up checks, and what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lab.errors import Blame
from lab.results.record import Outcome, Record


def records(session: Any) -> Sequence[Record]:
    """What was written so far."""
    path = session.directory / "records.jsonl"
    return [Record.parse(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def one(found: Sequence[Record]) -> tuple[Outcome, Blame, str]:
    """Outcome, blame and reason of the only record."""
    (record,) = found
    return record.outcome, record.blame, record.reason


def body(statement: str, arguments: str = "", fixtures: str = "guest") -> str:
    """A file with one check, `test_x`."""
    return f"""
        @check("boot.core"{arguments})
        def test_x({fixtures}):
            {statement}
    """
