"""The docs are true: links lead somewhere, commands run, generated pages are fresh."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(path for pattern in ("*.md", "docs/**/*.md") for path in ROOT.glob(pattern))
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# What a block of commands says of itself: a test runs it; a test that takes minutes does; only a person can.
KINDS = ("run", "minutes", "by-hand")


@dataclass(frozen=True)
class Command:
    """A line `$ ...` of a page, and the output that the page shows below it."""

    page: str
    words: str
    shown: str
    kind: str

    def __str__(self) -> str:
        return f"{self.page}: {self.words}"


def _blocks() -> list[tuple[Path, str, str]]:
    return [
        (page, information.strip(), body)
        for page in PAGES
        for information, body in FENCE.findall(page.read_text())
        if information.startswith("console")
    ]


def _commands(kind: str) -> list[Command]:
    found = []
    for page, information, body in _blocks():
        if information == f"console {kind}":
            for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
                words, _, shown = part.partition("\n")
                found.append(Command(str(page.relative_to(ROOT)), words, shown.rstrip("\n"), kind))
    return found


def _run(command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "path"
    folder.mkdir()
    (folder / "lab").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m lab "$@"\n')
    (folder / "lab").chmod(0o755)
    path = f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"

    finished = subprocess.run(
        # The environment that runs the tests, which need not be called .venv.
        ["bash", "-euc", command.words.replace(".venv/bin/", "")],
        cwd=ROOT,
        env={**os.environ, "PATH": path, "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )

    assert finished.returncode == 0, finished.stdout
    pattern = ".*?".join(re.escape(piece) for piece in command.shown.split("..."))
    assert command.shown == "" or re.fullmatch(pattern, finished.stdout.rstrip("\n"), re.DOTALL), finished.stdout


def test_every_block_of_commands_says_who_runs_it() -> None:
    silent = [
        f"{page.relative_to(ROOT)}: ```{information}"
        for page, information, _ in _blocks()
        if information.removeprefix("console").strip() not in KINDS
    ]

    assert silent == []


def test_no_block_of_commands_hides_behind_another_language() -> None:
    hidden = [
        f"{page.relative_to(ROOT)}: ```{information}"
        for page in PAGES
        for information, body in FENCE.findall(page.read_text())
        if information.split(" ")[0] in ("sh", "bash", "shell") or (information == "" and body.startswith("$ "))
    ]

    assert hidden == []


@pytest.mark.parametrize("command", _commands("run"), ids=str)
def test_a_command_of_the_docs_works(command: Command, tmp_path: Path) -> None:
    _run(command, tmp_path)


@pytest.mark.minutes
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("command", _commands("minutes"), ids=str)
def test_a_command_of_the_docs_that_boots_guests_works(command: Command, tmp_path: Path) -> None:
    _run(command, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    dead = []
    for target in LINK.findall(page.read_text()):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        linked = (page.parent / path).resolve() if path else page
        if not linked.exists() or (anchor and anchor not in _anchors(linked)):
            dead.append(target)

    assert dead == []


def test_the_reference_is_fresh() -> None:
    finished = subprocess.run(
        [sys.executable, "docs/reference/generate.py", "--check"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert finished.returncode == 0, finished.stdout + finished.stderr


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
