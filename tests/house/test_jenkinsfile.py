"""The Jenkinsfile has no logic of its own: it calls the lab, and keeps what the lab wrote."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

# Exit code 1 (the product failed) is not a failure of the build; that is all the shell may say.
ALLOWED = r"build/setup|\.venv/bin/lab \w[^;&|`$]*(?: \|\| test \$\? -eq 1)?"


@pytest.fixture
def jenkinsfile(root: Path) -> str:
    return (root / "Jenkinsfile").read_text()


def test_every_shell_step_calls_the_lab(jenkinsfile: str) -> None:
    steps = re.findall(r"\bsh\b\s*\(?\s*(?:script:\s*)?(['\"]{1,3})(.*?)\1", jenkinsfile, re.DOTALL)

    assert steps
    assert [step for _, step in steps if not re.fullmatch(ALLOWED, step)] == []


def test_it_is_declarative_and_has_no_script(jenkinsfile: str) -> None:
    assert jenkinsfile.lstrip().startswith(("//", "pipeline {"))
    assert not re.search(r"\b(def|script|if|for|while|try)\b\s*[({]", _without_comments(jenkinsfile))


def test_its_braces_match(jenkinsfile: str) -> None:
    text = _without_comments(jenkinsfile)

    assert text.count("{") == text.count("}")
    assert text.count("(") == text.count(")")


def _without_comments(text: str) -> str:
    return re.sub(r"(?m)^\s*//.*$", "", text)
