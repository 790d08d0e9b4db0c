"""Fixtures of the tests of the site: the module that makes run directories, the one that reads a site."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def _module(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def make() -> ModuleType:
    """The module `tests/results/runs.py`."""
    return _module("lab_test_runs", Path(__file__).parents[1] / "results" / "runs.py")


@pytest.fixture(scope="session")
def reading() -> ModuleType:
    """The module `tests/site/reading.py`."""
    return _module("lab_test_reading", Path(__file__).parent / "reading.py")
