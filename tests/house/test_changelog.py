"""Changes that a user can tell are written down as fragments."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest


@pytest.fixture
def fragments(root: Path) -> list[Path]:
    return [path for path in (root / "changelog.d").iterdir() if path.name not in (".gitignore", "template.md.jinja")]


def test_every_fragment_is_named_after_its_change_and_kind(root: Path, fragments: list[Path]) -> None:
    kinds = {
        kind["directory"] for kind in tomllib.loads((root / "pyproject.toml").read_text())["tool"]["towncrier"]["type"]
    }
    name = re.compile(rf"\+?[a-z0-9-]+\.({'|'.join(sorted(kinds))})\.md")

    assert [path.name for path in fragments if not name.fullmatch(path.name)] == []


def test_every_fragment_is_a_sentence(fragments: list[Path]) -> None:
    assert [path.name for path in fragments if not re.match(r"[A-Z`].*\.\s*\Z", path.read_text(), re.DOTALL)] == []


def test_the_next_changelog_can_be_written(root: Path, fragments: list[Path]) -> None:
    finished = subprocess.run(
        [Path(sys.executable).with_name("towncrier"), "build", "--draft", "--version", "next"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )

    assert finished.returncode == 0, finished.stderr
    assert all(path.read_text().split("\n")[0] in finished.stdout for path in fragments)
