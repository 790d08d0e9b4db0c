"""Plans: every cell once, excluded with a reason, in time and memory that grow with the cells only."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import hypervisors
from lab.catalogue import Catalogue, Check, Feature
from lab.contracts import Cell, Firmware, Profile, Realness
from lab.errors import ConfigurationError, NothingToRun, RunError
from lab.inventory.models import (
    BuildSource,
    Exclusion,
    FileSource,
    GuestEntry,
    Host,
    Inclusion,
    Inventory,
    Matrix,
    OsName,
)
from lab.runner import plan

CATALOGUE = Catalogue(
    (Feature("boot.core", "Boot", "boots", ("linux",), ("qemu",)),),
    (
        Check("conformance/boot/test_core.py::test_a", "boot.core", level="smoke"),
        Check("conformance/boot/test_core.py::test_b", "boot.core"),
        Check("performance/boot/test_core.py::test_c", "boot.core", level="performance"),
    ),
)
SMOKE, CONFORMANCE, PERFORMANCE = ((check.id,) for check in CATALOGUE.checks)


def guest(name: str, **fields: object) -> GuestEntry:
    whole = {"title": name, "family": "linux", "os": OsName(name="x", version="1"), "image": BuildSource(build="x")}
    return GuestEntry(name=name, **{**whole, **fields})


def lab(hosts=("h1", "h2"), guests=("g1", "g2"), profiles=("p1", "p2"), **matrix) -> Inventory:
    return Inventory(
        path=Path("dc"),
        hosts={name: Host(name, "fake", None, Realness.REAL) for name in hosts},
        guests={name: guest(name) for name in guests},
        profiles={name: Profile(name, Firmware.BIOS, "q35", "virtio", "virtio", 1, 256) for name in profiles},
        matrix=Matrix(tuple(hosts), tuple(guests), tuple(profiles), **{"suites": ("smoke", "conformance"), **matrix}),
        suites=Path("suites"),
    )


@pytest.fixture(autouse=True)
def refusals(monkeypatch):
    """What the only driver refuses, by profile."""
    refused: dict[str, str] = {}
    driver = SimpleNamespace(refuses=lambda profile: refused.get(profile.name))
    monkeypatch.setattr(hypervisors, "load", {"fake": driver}.__getitem__)
    return refused


def make(inventory: Inventory, *, suite=None, select=(), exclude=()) -> plan.Plan:
    return plan.make(inventory, CATALOGUE, suite=suite, select=select, exclude=exclude)


def excluded(made: plan.Plan) -> dict[str, str | None]:
    return {planned.cell.name: planned.excluded for planned in made.cells}


NAMES = st.lists(st.from_regex(r"[a-z][a-z0-9-]{0,4}[a-z]", fullmatch=True), min_size=1, max_size=5, unique=True)


@given(hosts=NAMES, guests=NAMES, profiles=NAMES)
def test_every_host_guest_and_profile_meet_exactly_once(hosts, guests, profiles):
    made = make(lab(hosts, guests, profiles))

    cells = [planned.cell for planned in made.cells]
    assert sorted(cells) == sorted(Cell(h, g, p) for h in hosts for g in guests for p in profiles)


@given(hosts=NAMES, guests=NAMES, profiles=NAMES, data=st.data())
def test_what_is_excluded_has_its_reason_and_no_checks_and_the_rest_has_checks(hosts, guests, profiles, data):
    gone = data.draw(st.sampled_from(guests))
    rules = (Exclusion(cells=f"*/{gone}/*", reason="not today"),)

    made = make(lab(hosts, guests, profiles, exclude=rules))

    for planned in made.cells:
        if planned.cell.guest == gone:
            assert (planned.excluded, planned.checks) == ("not today", ())
        else:
            assert (planned.excluded, planned.checks) == (None, SMOKE + CONFORMANCE)


@given(hosts=NAMES, guests=NAMES, profiles=NAMES, data=st.data())
def test_include_adds_to_the_product(hosts, guests, profiles, data):
    added = data.draw(
        st.lists(st.tuples(st.sampled_from(hosts), st.sampled_from(guests), st.just("more-hardware")), unique=True)
    )
    inventory = lab(hosts, guests, [*profiles, "more-hardware"])
    product = replace(inventory.matrix, profiles=tuple(profiles))
    included = tuple(Inclusion(cell="/".join(parts)) for parts in added)

    without = make(replace(inventory, matrix=product))
    made = make(replace(inventory, matrix=replace(product, include=included)))

    assert made.cells[: len(without.cells)] == without.cells
    assert [planned.cell for planned in made.cells[len(without.cells) :]] == [Cell(*parts) for parts in added]


def test_an_inclusion_may_have_suites_of_its_own():
    include = (Inclusion(cell="h1/g1/p2", suites=("performance",)),)
    inventory = lab(profiles=("p1", "p2"))
    matrix = replace(inventory.matrix, profiles=("p1",), include=include)

    made = make(replace(inventory, matrix=matrix))

    assert made.cells[-1].checks == PERFORMANCE


@pytest.mark.parametrize(
    ("suites", "asked", "checks"),
    [
        (("smoke",), None, SMOKE),
        (("conformance",), None, SMOKE + CONFORMANCE),
        (("smoke", "conformance", "performance"), None, SMOKE + CONFORMANCE + PERFORMANCE),
        (("conformance",), "smoke", ()),
        (("smoke", "performance"), "conformance", SMOKE),
        (("performance",), "performance", PERFORMANCE),
    ],
)
def test_the_checks_are_those_of_the_suites(suites, asked, checks):
    made = make(lab(suites=suites), suite=asked)

    assert {planned.checks for planned in made.cells} == {checks}


def test_cells_share_their_checks():
    made = make(lab())

    assert len({id(planned.checks) for planned in made.cells}) == 1


def test_a_suite_that_the_matrix_does_not_have_leaves_every_cell_out():
    made = make(lab(), suite="performance")

    assert set(excluded(made).values()) == {"the matrix gives this cell no suite performance"}


def test_an_unknown_suite_is_an_error():
    with pytest.raises(ConfigurationError) as caught:
        make(lab(), suite="smok")

    assert str(caught.value) == ('no suite "smok"\n  -> did you mean "smoke"? known: smoke, conformance, performance')


def test_hardware_that_the_driver_refuses_is_excluded_with_its_sentence(refusals):
    refusals["p2"] = "this hypervisor has no PCI bus"

    assert excluded(make(lab(("h1",), ("g1",)))) == {
        "h1/g1/p1": None,
        "h1/g1/p2": "this hypervisor has no PCI bus",
    }


def test_hardware_without_a_driver_in_the_guest_is_excluded():
    inventory = lab(("h1",), ("g1", "g2", "g3"), ("p1",))
    guests = {
        "g1": guest("g1"),
        "g2": guest("g2", drivers=("nvme", "e1000e")),
        "g3": guest("g3", drivers=("ubd", "virtio")),
    }
    odd = Profile("p1", Firmware.BIOS, "q35", "nvme", "virtio", 1, 256)

    made = make(replace(inventory, guests=guests, profiles={"p1": odd}))

    assert excluded(made) == {
        "h1/g1/p1": None,
        "h1/g2/p1": "g2 has no driver for the network card virtio",
        "h1/g3/p1": "g3 has no driver for the disk nvme",
    }


def test_a_guest_whose_image_cannot_be_had_is_excluded(tmp_path):
    source = FileSource(file=tmp_path / "none.raw", format="raw", sha256="0" * 64)
    inventory = lab(("h1",), ("g1",), ("p1",))

    made = make(replace(inventory, guests={"g1": guest("g1", image=source, optional=True)}))

    assert excluded(made) == {"h1/g1/p1": f"there is no file {tmp_path}/none.raw"}


def test_the_reason_that_a_person_wrote_comes_first(refusals):
    refusals["p1"] = "no such bus"

    made = make(lab(("h1",), ("g1",), ("p1",), exclude=(Exclusion(cells="*", reason="under repair"),)))

    assert excluded(made) == {"h1/g1/p1": "under repair"}


# -- selection --------------------------------------------------------------------------------------------


def test_a_selection_keeps_the_order_of_the_matrix():
    made = make(lab(), select=("*/p2", "h2/*"), exclude=("*/g2/*",))

    assert list(excluded(made)) == ["h1/g1/p2", "h2/g1/p1", "h2/g1/p2"]


@given(select=st.lists(st.sampled_from(["*", "h1/*", "*g2*", "h?/g1/p[12]"])), exclude=st.sampled_from([(), ("h2/*",)]))
def test_a_selected_plan_is_a_part_of_the_whole_plan(select, exclude):
    whole = make(lab())
    inventory = lab()

    part = make(inventory, select=select, exclude=exclude)

    assert [planned for planned in whole.cells if planned in part.cells] == list(part.cells)


SELECTIONS = {
    "qemu/debian12/*": '--select "qemu/debian12/*" fits no cell\n  -> did you mean "qemu/debian-12/*"?',
    "*/jeos/q53": '--select "*/jeos/q53" fits no cell\n  -> did you mean "*/jeos/q35"?',
    "*debian*12": '--select "*debian*12" fits no cell\n  -> did you mean "*debian-12*"?',
    "jeso": '--select "jeso" fits no cell\n  -> did you mean "*jeos*"?',
    "qemu/jeos": '--select "qemu/jeos" fits no cell\n  -> did you mean "qemu/jeos/q35" or "qemu/jeos/pc-bios"?',
    "XYZ/*": '--select "XYZ/*" fits no cell\n  -> lab plan INVENTORY lists the cells',
    "": '--select "" fits no cell\n  -> lab plan INVENTORY lists the cells',
}


@pytest.mark.parametrize(("glob", "expected"), SELECTIONS.items())
def test_a_selection_that_fits_nothing_is_an_error_that_names_the_nearest(glob, expected):
    inventory = lab(("qemu", "uml"), ("debian-12", "jeos"), ("pc-bios", "q35"))

    with pytest.raises(NothingToRun) as caught:
        make(inventory, select=("uml/*", glob))

    assert str(caught.value) == expected


def test_an_exclusion_that_fits_nothing_is_an_error():
    with pytest.raises(ConfigurationError) as caught:
        make(lab(), exclude=("h1/g1/q*",))

    assert str(caught.value).startswith('--exclude "h1/g1/q*" fits no cell')


def test_excluding_all_that_is_selected_is_an_error():
    with pytest.raises(NothingToRun, match="--exclude leaves no cell of those selected"):
        make(lab(), select=("h1/*",), exclude=("*/g?/*",))


@given(glob=st.text(max_size=30))
def test_a_glob_selects_something_or_is_an_error_that_says_so(glob):
    try:
        made = make(lab(), select=(glob,))
    except NothingToRun as reason:
        said = reason.what
    else:
        said = "" if made.cells else "an empty plan"

    assert said in ("", f'--select "{glob}" fits no cell')


# -- time -------------------------------------------------------------------------------------------------


def test_the_estimate_knows_how_many_cells_run_at_once(monkeypatch):
    monkeypatch.setattr(plan.os, "sched_getaffinity", lambda pid: {0, 1})
    inventory = lab(("h1",), ("g1",), ("p1", "p2", "p3", "p4"))
    one_by_one = replace(inventory, hosts={"h1": replace(inventory.hosts["h1"], cells_at_once=1)})

    assert make(one_by_one).estimate_s == pytest.approx(2 * make(inventory).estimate_s)


def test_what_earlier_runs_took_replaces_the_guess():
    inventory = lab(("h1",), ("g1",), ("p1", "p2"))
    limited = replace(inventory, hosts={"h1": replace(inventory.hosts["h1"], cells_at_once=1)})

    made = plan.expecting(make(limited), limited, {"h1/g1/p1": 10.0, "h1/g1/p2": 2.5, "gone/g1/p1": 99.0})

    assert made.estimate_s == 12.5


def test_a_host_whose_cells_take_long_comes_first_and_its_cells_keep_their_order():
    inventory = lab(("h1", "h2"), ("g1",), ("p1", "p2"))
    made = plan.expecting(make(inventory), inventory, {"h1/g1/p1": 9.0, "h1/g1/p2": 8.0, "h2/g1/p1": 1.0})

    names = [planned.cell.name for planned in plan.longest_host_first(made.cells)]

    assert names == ["h2/g1/p1", "h2/g1/p2", "h1/g1/p1", "h1/g1/p2"]


def test_a_cell_on_a_host_that_the_lab_makes_is_expected_to_take_longer(monkeypatch):
    monkeypatch.setattr(plan.hosts, "made_from", lambda host: "xen-host" if host.name == "h2" else "")
    monkeypatch.setattr(plan.hosts, "lacks", lambda host: None)

    plain, made = (planned.expected_s for planned in make(lab(profiles=("p1",), guests=("g1",))).cells)

    assert made == plain + plan.MADE_HOST_S


def test_an_excluded_cell_takes_no_time():
    inventory = lab(("h1",), ("g1",), ("p1",), exclude=(Exclusion(cells="*", reason="x"),))

    assert plan.expecting(make(inventory), inventory, {"h1/g1/p1": 10.0}).estimate_s == 0


def test_a_cell_with_a_check_of_two_machines_is_planned_with_two():
    (cell,) = make(lab(("h1",), ("g1",), ("p1",))).cells
    assert cell.machines == 1
    both = replace(CATALOGUE, checks=(*CATALOGUE.checks, replace(CATALOGUE.checks[0], id="two", machines=2)))
    (cell,) = plan.make(lab(("h1",), ("g1",), ("p1",)), both, suite=None, select=(), exclude=()).cells

    assert cell.machines == 2


# -- as a document ----------------------------------------------------------------------------------------


def test_a_plan_as_json_has_the_agreed_keys():
    document = plan.as_json(make(lab(("h1",), ("g1",), ("p1",), exclude=(Exclusion(cells="*", reason="x"),))))

    assert document == {
        "schema": 1,
        "cells": [
            {
                "cell": "h1/g1/p1",
                "host": "h1",
                "guest": "g1",
                "profile": "p1",
                "realness": "real",
                "checks": [],
                "excluded": "x",
                "expected_s": 0.0,
                "machines": 1,
            }
        ],
        "estimate_s": 0.0,
    }


def test_a_plan_that_was_kept_is_read_back_as_it_was(tmp_path):
    made = make(lab(exclude=(Exclusion(cells="*/p2", reason="x"),)))
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan.as_json(made)))

    assert plan.from_json(path) == made


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "is not a plan: "),
        ("[]", "is not a plan: "),
        ('{"schema": 2}', ": schema 2 is not 1, another version wrote it"),
        ('{"schema": 1, "cells": [{}], "estimate_s": 1}', "is not a plan: 'cell'"),
        ('{"schema": 1, "cells": [{"cell": "a"}], "estimate_s": 1}', "is not a plan: 'a' is not a cell"),
    ],
)
def test_a_file_that_is_no_plan_is_an_error(tmp_path, content, expected):
    path = tmp_path / "plan.json"
    path.write_text(content)

    with pytest.raises(RunError) as caught:
        plan.from_json(path)

    assert f"{path}" in str(caught.value)
    assert expected in str(caught.value)


def test_a_missing_plan_is_an_error(tmp_path):
    with pytest.raises(RunError, match=r"plan\.json cannot be read: No such file or directory"):
        plan.from_json(tmp_path / "plan.json")
