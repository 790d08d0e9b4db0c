"""Fixtures of the tests of the site: the module that makes run directories."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def make() -> ModuleType:
    """The module `tests/results/runs.py`."""
    path = Path(__file__).parents[1] / "results" / "runs.py"
    spec = importlib.util.spec_from_file_location("lab_test_runs", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module
