"""No escape sequence of a guest reaches a reader: not on the site, not in JUnit, not in Allure, not on the terminal."""

from __future__ import annotations

import io
import re
from pathlib import Path
from types import ModuleType

from rich.console import Console

from lab import tables
from lab.guests import triage
from lab.results import allure, junit
from lab.results.store import Run
from lab.site import pages

NASTY = "\x1b[2J\x1b]0;title\x07\x1bP1$r\x1b\\\x00\x08\x7f\x9b31m\u202e\r"
RAW = NASTY.encode() + b"\xff\xfe\xc3(\x9b\n" + b"\x1b[1m" * 100
# C0 but tab and newline, DEL, C1: what a terminal acts upon (ECMA-48).
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
BINARY = {".png"}


def test_no_file_for_readers_holds_a_control_character(reading: ModuleType, make: ModuleType, tmp_path: Path) -> None:
    maker = make.RunMaker(tmp_path)
    evidence = [f"cells/a/b/c/attempt-1/evidence/failure{suffix}" for suffix in (".txt", ".log", ".json", ".conf")]
    given = make.Result(make.Outcome.FAILED, NASTY, evidence=tuple(evidence))
    layout = maker.cell("a/b/c", {make.check("boot.core"): given}, guest={"os": {"name": NASTY}}, command=NASTY)
    for path in (layout.console, layout.kernel_log, layout.cell_log, layout.reproduce):
        path.write_bytes(RAW)
    for name in evidence:
        (maker.layout.root / name).write_bytes(RAW)
    run = maker.finish()

    site = pages.write([run], tmp_path / "site", reading.catalogue_of([run]), now=make.NOW).parent
    xml = junit.write(Run.open(run))
    results = allure.write(Run.open(run))

    shown = [xml, *(path for folder in (site, results) for path in folder.rglob("*") if path.is_file())]
    assert len(shown) > 15
    for path in shown:
        if path.suffix not in BINARY:
            found = CONTROLS.search(path.read_text(encoding="utf-8"))
            assert found is None, (path, found)


def test_the_terminal_shows_no_control_character_of_a_console() -> None:
    log = b"[    0.000000] Linux version \x1b[31m6.1\x07\n[    1.000000] Kernel panic - not syncing: "
    log += RAW.replace(b"\r", b"")  # which would write the line anew
    stream = io.StringIO()

    tables.facts(Console(file=stream, force_terminal=False), triage.triage(log).as_json())

    assert "kernel-panic" in stream.getvalue()
    assert CONTROLS.search(stream.getvalue()) is None
