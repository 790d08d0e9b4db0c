"""`lab qualify`: which cell of a host it takes, and what a run over a host without guests says."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from lab.runner import qualify
from lab.testing import qualification
from tests.commands.made import Call, Made


def test_a_simulated_host_keeps_its_word_and_answers_for_no_guest(made: Made, call_apart: Call, tmp_path: Path) -> None:
    code, out, err = call_apart("qualify", made.folder, "sim", "--json", "--reports", tmp_path)

    assert code == 0, err
    answer = json.loads(out)
    run = Path(answer["directory"])
    cell = run / "cells/sim/thing/pc/attempt-1"
    records = [json.loads(line) for line in (cell / "records.jsonl").read_text().splitlines()]
    assert {record["check"] for record in records} == set(qualification.catalogue().checks_by_id)
    counts = Counter(record["outcome"] for record in records)
    assert set(counts) == {"passed", "unsupported"}
    assert counts["passed"] >= 12
    assert {record["realness"] for record in records} == {"simulated"}
    by_check = {record["check"]: record for record in records}
    asked = by_check["driver/power::test_a_guest_shuts_down_in_order_when_asked"]
    assert asked["reason"].endswith("is simulated: it has no guest, so nothing answers on port 22")
    assert by_check["driver/tpm::" + _a_test_of("driver.tpm")]["reason"] == (
        "sim: a simulated host has no guest that could notice it"
    )
    assert json.loads((cell / "cell.json").read_text())["command"] == (
        f"lab qualify {made.folder} sim --guest thing --profile pc"
    )
    shown = (tmp_path / "site/cells/simulated/sim/thing/pc.html").read_text()
    assert "driver.machines" in shown
    assert "a machine bears its owners mark" in shown
    assert not list((tmp_path / "state").rglob("machine.json"))
    code, out, err = call_apart("verdict", run, "--feature", "driver.host", "--json")
    assert code == 0, err
    (verdict,) = json.loads(out)
    assert (verdict["cell"], verdict["observed"]) == ("sim/thing/pc", "works")


def _a_test_of(feature: str) -> str:
    return next(check.id.partition("::")[2] for check in qualification.catalogue().checks_of(feature))


def test_a_host_that_breaks_its_word_is_the_exit_code_1(made: Made, call_apart: Call, tmp_path: Path) -> None:
    code, out, _ = call_apart(
        "qualify", made.folder, "vanishes", "--guest", "thing", "--profile", "pc", "--json", "--reports", tmp_path
    )

    assert code == 1
    run = Path(json.loads(out)["directory"])
    records = [
        json.loads(line) for line in (run / "cells/vanishes/thing/pc/attempt-1/records.jsonl").read_text().splitlines()
    ]
    failed = [record for record in records if record["outcome"] == "failed"]
    assert {record["blame"] for record in failed} == {"product"}
    assert any("ended unasked" in record["reason"] for record in failed)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nowhere",), 'no host "nowhere"'),
        (("sim", "--guest", "nobody"), 'no guest "nobody"'),
        (("sim", "--feature", "driver.magic"), "no feature of a driver is called driver.magic"),
        (("sim", "--profile", "nothing"), 'no profile "nothing"'),
        (("panic",), "the matrix has no cell of panic with a linux guest that can run"),
        (("sim", "--guest", "thing", "--profile", "e1000e"), "sim/thing/e1000e cannot be: "),
    ],
)
def test_what_cannot_be_tried_is_told(made: Made, call: Call, words: tuple[str, ...], said: str) -> None:
    code, _, err = call("qualify", made.folder, *words)

    assert code in (2, 4)
    assert said in err


def test_by_default_it_takes_the_first_cell_of_the_matrix_that_can_run(made: Made) -> None:
    plan = qualify.plan(made.inventory, qualification.catalogue(), "sim", qualify.Wanted())

    (planned,) = plan.cells
    assert planned.cell.name == "sim/thing/pc"
    assert planned.checks == tuple(qualification.catalogue().checks_by_id)


def test_some_features_alone_can_be_asked_for(made: Made) -> None:
    plan = qualify.plan(
        made.inventory, qualification.catalogue(), "sim", qualify.Wanted(features=("driver.tpm", "driver.h*"))
    )

    features = {qualification.catalogue().checks_by_id[check].feature for check in plan.cells[0].checks}
    assert features == {"driver.host", "driver.tpm"}
