"""Finding and loading drivers."""

from __future__ import annotations

import pytest

from lab import hypervisors
from lab.errors import ConfigurationError


def test_every_public_module_of_the_folder_is_a_driver() -> None:
    assert "qemu" in hypervisors.names()
    assert not any(name.startswith("_") for name in hypervisors.names())


@pytest.mark.parametrize("name", hypervisors.names())
def test_every_driver_exports_what_the_contract_names(name: str) -> None:
    driver = hypervisors.load(name)
    for member in ("Settings", "REALNESS", "connect", "refuses"):
        assert hasattr(driver, member), f"{name} lacks {member}"
    assert driver.Settings.model_config["frozen"]
    assert driver.Settings.model_config["extra"] == "forbid"


def test_a_misspelt_driver_is_answered_with_the_one_that_was_meant() -> None:
    with pytest.raises(ConfigurationError, match=r'no driver "qemuu" \(did you mean "qemu"\? known: .*qemu.*\)'):
        hypervisors.load("qemuu")


def test_an_unlike_name_is_answered_with_the_list_alone() -> None:
    with pytest.raises(ConfigurationError) as caught:
        hypervisors.load("zzzzzz")
    assert "did you mean" not in str(caught.value)
    assert "known: " in str(caught.value)


@pytest.mark.parametrize("name", ["__init__", "_qemu_arguments", "../inventory", "os", ""])
def test_nothing_but_a_driver_can_be_loaded(name: str) -> None:
    with pytest.raises(ConfigurationError, match="no driver"):
        hypervisors.load(name)
