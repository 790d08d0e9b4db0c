"""A driver is a file; what has to come with it cannot be forgotten."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from lab import hypervisors
from lab.contracts import Realness

DRIVERS = hypervisors.names()


def test_the_local_drivers_are_found_by_their_file_names() -> None:
    assert {"qemu", "uml", "simulated"} <= set(DRIVERS)


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_driver_has_an_extra(driver: str, root: Path) -> None:
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]

    assert driver in extras


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_driver_is_put_through_the_contract_suite(driver: str, root: Path) -> None:
    test = root / f"tests/hypervisors/test_{driver}.py"

    assert "HypervisorContract" in test.read_text()


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_driver_is_in_the_docs(driver: str, root: Path) -> None:
    assert f"## {driver}\n" in (root / "docs/reference/drivers.md").read_text()


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_drivers_settings_are_frozen_and_know_their_keys(driver: str) -> None:
    settings = hypervisors.load(driver).Settings

    assert issubclass(settings, BaseModel)
    assert settings.model_config.get("frozen") is True
    assert settings.model_config.get("extra") == "forbid"


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_driver_says_how_real_it_is(driver: str) -> None:
    assert hypervisors.load(driver).REALNESS in Realness
