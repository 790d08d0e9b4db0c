"""The set-up: what it installs is what the lab calls, pinned, and it never goes on where it may not."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ON_EVERY_DEBIAN = {"apt", "coreutils", "util-linux"}
Packages = Mapping[str, tuple[str, ...]]


@pytest.fixture
def packages(root: Path) -> Packages:
    """Debian packages of the set-up with the words behind each."""
    lines = (line.split() for line in (root / "build/packages.txt").read_text().splitlines())
    return {words[0]: tuple(words[1:]) for words in lines if words and words[0] != "#"}


@pytest.fixture
def pins(root: Path) -> Mapping[str, str]:
    """Pinned Python packages with their versions."""
    lines = (root / "build/constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


@pytest.fixture
def checkout(root: Path, tmp_path: Path) -> Path:
    """A copy of what the set-up reads, to run it in."""
    shutil.copytree(root / "build", tmp_path / "lab/build")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, tmp_path / "lab")
    return tmp_path / "lab"


def _set_up(checkout: Path, *arguments: str, **programs: str) -> subprocess.CompletedProcess[str]:
    """Run the set-up with some programs replaced by shell scripts."""
    folder = checkout.parent / "programs"
    folder.mkdir()
    for name, script in programs.items():
        (folder / name.replace("_", "-")).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name.replace("_", "-")).chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    return subprocess.run(
        ["build/setup", *arguments], cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )


def test_without_root_the_set_up_prints_the_command_and_stops(checkout: Path, packages: Packages) -> None:
    for_run = " ".join(sorted(name for name, words in packages.items() if words[0] == "run"))

    finished = _set_up(checkout, dpkg_query="exit 1", id="echo 1000", sudo="exit 1")

    assert finished.returncode == 3
    assert finished.stderr == (
        "set-up: system packages are missing, and this user may not install them. Run this, then try again:\n"
        f"  sudo apt-get update && sudo apt-get install --yes --no-install-recommends {for_run}\n"
    )
    assert not (checkout / ".venv").exists()


def test_packages_are_installed_without_recommendations_and_lists_fetched_again_once(
    checkout: Path, packages: Packages
) -> None:
    names = sorted(name for name, words in packages.items() if words[0] == "run")

    finished = _set_up(
        checkout,
        dpkg_query="exit 1",
        id="echo 0",
        apt_get=f'echo "$*" >>{checkout}/calls; exit 1',
    )

    calls = (checkout / "calls").read_text().splitlines()
    installs = [call for call in calls if " install " in call]
    assert finished.returncode == 3
    assert f"set-up: apt-get could not install: {names[0]} " in finished.stderr
    assert len(installs) == 1
    assert f"--no-install-recommends {names[0]} " in installs[0]
    assert calls[-1].endswith(" update")


def test_an_unknown_word_is_refused(checkout: Path) -> None:
    finished = _set_up(checkout, "everything")

    assert (finished.returncode, finished.stderr) == (2, "build/setup: everything: neither 'run' nor 'test'\n")


def test_without_a_python_of_today_the_set_up_stops(checkout: Path) -> None:
    old = dict.fromkeys(("python3", "python3.11", "python3.12", "python3.13"), "exit 1")

    finished = _set_up(checkout, **old)

    assert finished.returncode == 2
    assert finished.stderr == "set-up: no Python 3.11 or newer on the path (apt-get install python3)\n"


def test_every_package_says_who_needs_it_and_why(packages: Packages) -> None:
    unclear = [name for name, words in packages.items() if words[0] not in ("run", "test") or len(words) < 4]

    assert unclear == []


def test_every_package_that_a_message_names_is_set_up(
    lab_modules: Mapping[Path, ast.Module], packages: Packages
) -> None:
    named = {package for tree in lab_modules.values() for package in _packages_named(tree)}

    assert named - set(packages) - ON_EVERY_DEBIAN == set()


def test_every_python_package_is_pinned_to_a_version_that_is_allowed(root: Path, pins: Mapping[str, str]) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    wanted = [
        Requirement(line)
        for lines in (project["dependencies"], *project["optional-dependencies"].values())
        for line in lines
    ]

    wrong = [str(it) for it in wanted if pins.get(canonicalize_name(it.name), "0") not in it.specifier]

    assert wrong == []


def test_ci_runs_the_tests_through_make(root: Path) -> None:
    lines = [line for line in (root / ".ci/run").read_text().splitlines() if line and not line.startswith("#")]

    assert lines[-1] == "exec make --no-print-directory test"


def _packages_named(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("find"):
            yield from (
                word.value.value
                for word in node.keywords
                if word.arg == "package" and isinstance(word.value, ast.Constant)
            )
