"""A cell opened by `pytest suites --lab-inventory ... --lab-cell ...`, without the lab's runner."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from lab import catalogue, log, process
from lab.checking.cell_run import CellRun, Where
from lab.contracts import Cell, Owner
from lab.errors import ConfigurationError
from lab.inventory.load import load
from lab.provisioning.bring_up import open_session
from lab.results import layout, store
from lab.results.documents import CellDocument, RunDocument
from lab.results.record import SCHEMA

_log = log.get(__name__)


@contextmanager
def opened(inventory_path: Path, cell_name: str, directory: str | None) -> Iterator[CellRun]:
    """Open the session of a cell and a run directory for its records; on exit everything is undone and written.

    Raises `ConfigurationError` and whatever else keeps the host from being used.
    """
    inventory = load(inventory_path)
    cell = Cell.parse(cell_name)
    lacking = inventory.lacks(cell)
    if lacking is not None:
        raise ConfigurationError(
            f"{inventory_path} has no {lacking.kind} {lacking.name!r}; it has {', '.join(sorted(lacking.known))}"
        )
    now = datetime.now(UTC)
    run = layout.new_run_id(now)
    paths = layout.RunLayout(
        Path(directory).resolve() if directory else layout.run_directory(Path("reports").resolve(), run)
    )
    if paths.run_json.exists():
        raise ConfigurationError(f"{paths.root} holds a run already", hint="name a new directory")
    attempt = paths.attempt(cell, 1)
    attempt.root.mkdir(parents=True, exist_ok=True)
    document = RunDocument(
        run=run,
        started=now,
        inventory=str(inventory_path),
        command=shlex.join(sys.argv),
        version=metadata.version("interop-lab") if _is_installed() else "unknown",
    )
    store.write_document(paths.run_json, document)
    handler = log.write_to(attempt.cell_log)
    owner = Owner(run, cell.name, os.getpid(), process.start_time(os.getpid()) or 0)
    try:
        with open_session(inventory, cell, owner=owner, directory=attempt.root, progress=_say) as session:
            where = Where(run=run, attempt=1, suites=inventory.suites.resolve(), directory=attempt.root)
            cell_run = CellRun(session, catalogue.load(inventory.suites), where, wanted=None, progress=_say)
            yield cell_run
            facts = session.facts()
            cell_document = CellDocument.model_validate(
                {
                    **facts,
                    "run": run,
                    "cell": cell.name,
                    "attempt": 1,
                    "realness": session.realness,
                    "warm": list(session.warm_history),
                    "phases": dict(session.phases),
                    "outcome": cell_run.worst,
                    "command": document.command,
                }
            )
            store.write_document(attempt.cell_json, cell_document)
        planned = {
            **asdict(cell),
            "cell": cell.name,
            "realness": session.realness,
            "checks": cell_run.done,
            "excluded": None,
        }
        store.write_json(paths.plan_json, {"schema": SCHEMA, "cells": [planned], "estimate_s": 0.0})
        finished = document.model_copy(update={"finished": datetime.now(UTC), "outcomes": cell_run.counts})
        store.write_document(paths.run_json, finished)
    finally:
        log.stop_writing(handler)


def _say(phase: str) -> None:
    _log.info("cell.phase", phase=phase)


def _is_installed() -> bool:
    return any(metadata.distributions(name="interop-lab"))
