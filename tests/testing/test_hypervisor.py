"""The contract suite for drivers convicts: one that does nothing, and one that lies about one thing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

HERE = Path(__file__).parent
_RESULT = re.compile(r"^(PASSED|FAILED|ERROR|SKIPPED).*?::(Test[\w-]+)::(test_\w+)", re.MULTILINE)
CONVICTED_BY = (
    ("no-version", "test_the_host_says_what_it_is"),
    ("no-sentence", "test_limits_are_sentences_about_capabilities"),
    ("believes-images", "test_an_image_whose_file_is_missing_is_refused"),
    ("any-name", "test_a_name_that_could_be_a_path_or_an_option_is_refused"),
    ("takes-twice", "test_a_name_is_given_once"),
    ("always-has-address", "test_a_new_machine_is_stopped"),
    ("always-has-endpoint", "test_a_stopped_machine_has_no_endpoint"),
    ("leaves-traces", "test_a_destroyed_machine_leaves_nothing"),
    ("lists-nothing", "test_a_machine_bears_its_owners_mark"),
    ("wrong-owner", "test_a_machine_bears_its_owners_mark"),
    ("no-script", "test_what_reproduces_a_machine_names_its_image"),
    ("start-reboots", "test_starting_a_running_machine_changes_nothing"),
    ("never-stops", "test_a_guest_shuts_down_in_order_when_asked"),
    ("forgets-disk", "test_a_power_cut_ends_the_guest_at_once_and_keeps_what_was_written"),
    ("keeps-memory", "test_a_power_cut_ends_the_guest_at_once_and_keeps_what_was_written"),
    ("restores-nothing", "test_a_restored_machine_forgets_what_came_after"),
    ("restores-disk-alone", "test_a_restored_machine_forgets_what_came_after"),
    ("deletes-nothing", "test_snapshots_are_listed_until_they_are_deleted"),
    ("never-pauses", "test_a_paused_guest_stands_still_and_goes_on"),
)


@pytest.fixture(scope="session")
def results() -> Mapping[tuple[str, str], str]:
    """What became of each test of each class, in one pytest of its own; the worst of a parametrized one."""
    folders = HERE / "folder_contract.py"
    lies = [f"{folders}::Test_{lie}::{test}" for lie, test in CONVICTED_BY]
    line = [sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", str(HERE), "-p", "no:cacheprovider"]
    options = ["-rA", "-q", "--tb=no", "--import-mode=importlib", "-W", "ignore"]
    said = subprocess.run(
        [*line, *options, f"{folders}::TestFolders", *lies, str(HERE / "hollow_contract.py")],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        # Plugins would cost more than the tests.
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        cwd=HERE.parents[1],
    )
    found: dict[tuple[str, str], str] = {}
    for outcome, owner, name in _RESULT.findall(said.stdout):
        if found.get((owner, name)) != "FAILED":
            found[owner, name] = outcome
    assert found, said.stdout + said.stderr
    return found


def test_an_honest_driver_passes(results: Mapping[tuple[str, str], str]) -> None:
    honest = {name: outcome for (owner, name), outcome in results.items() if owner == "TestFolders"}

    assert {name: outcome for name, outcome in honest.items() if outcome != "PASSED"} == {}
    assert len(honest) >= 20


@pytest.mark.parametrize(("lie", "convicted_by"), CONVICTED_BY)
def test_a_lying_driver_is_convicted(results: Mapping[tuple[str, str], str], lie: str, convicted_by: str) -> None:
    assert results[f"Test_{lie}", convicted_by] == "FAILED"


def test_a_hollow_driver_fails_everything_but_what_nothing_can_disprove(
    results: Mapping[tuple[str, str], str],
) -> None:
    hollow = {name: outcome for (owner, name), outcome in results.items() if owner == "TestHollow"}

    passed = {name for name, outcome in hollow.items() if outcome not in ("FAILED", "ERROR")}
    # Having no limits is a claim to be able to do everything, which the other tests disprove.
    assert passed == {"test_limits_are_sentences_about_capabilities"}
    assert len(hollow) >= 30
