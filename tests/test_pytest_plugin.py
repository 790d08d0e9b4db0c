"""The pytest plugin as pytest loads it: without effect in other projects, and with clear errors in ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


def other_project(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "pytest", "--disable-plugin-autoload", "-p", "lab.pytest_plugin", *arguments]
    return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)


def test_the_plugin_has_no_effect_in_another_project(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import sys\n"
        "def test_it():\n"
        "    heavy = ('lab.checking', 'lab.inventory', 'lab.provisioning', 'pydantic', 'paramiko')\n"
        "    assert [name for name in heavy if name in sys.modules] == []\n"
        "def test_no_fixture(guest): ...\n"
    )
    done = other_project(tmp_path, "-q")
    assert "fixture 'guest' not found" in done.stdout
    assert "1 passed, 1 error" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir() if path.name[0] not in "._") == ["test_it.py"]


def test_half_of_the_options_is_an_error(tmp_path: Path) -> None:
    done = other_project(tmp_path, "--lab-cell", "a/b/c")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "--lab-inventory and --lab-cell belong together" in done.stderr


def test_a_cell_that_the_inventory_does_not_have_is_an_error(tmp_path: Path) -> None:
    done = other_project(
        tmp_path, "--lab-inventory", f"{REPOSITORY}/inventories/local", "--lab-cell", "qemu/nosuch/pc-bios"
    )
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "has no guest 'nosuch'; it has " in done.stderr
