"""The contract suite for drivers convicts: one that does nothing, and one that lies about one thing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lab.contracts import Capability
from lab.testing.contract import ContractTest, contract_tests, feature_of
from lab.testing.hypervisor import HypervisorContract
from tests.testing.reference.lies import LIES, Lie

pytestmark = pytest.mark.timeout(600)  # the first test waits for some four hundred

HERE = Path(__file__).parent
TESTS: Mapping[str, ContractTest] = {test.name: test for test in contract_tests(HypervisorContract)}
_RESULT = re.compile(r"^(PASSED|FAILED|ERROR|SKIPPED).*?::(Test[\w-]+)::(test_\w+)", re.MULTILINE)
_HARMLESS = {
    # Having no limits is a claim to be able to do everything, which the other tests disprove.
    "test_limits_are_sentences_about_capabilities",
    "test_what_is_not_offered_has_a_reason",
    # Nobody feeds a watchdog in a guest that has none to feed.
    "test_a_watchdog_fires_when_nobody_feeds_it_and_only_then",
}


def _of_feature(lie: Lie) -> list[str]:
    """All tests of the feature that a lie is about."""
    feature = TESTS[lie.convicted_by[0]].feature
    return [test.name for test in TESTS.values() if test.feature == feature]


@pytest.fixture(scope="session")
def results() -> Mapping[tuple[str, str], str]:
    """What became of each test of each class, in two runs of pytest side by side."""
    folders = HERE / "folder_contract.py"
    halves = [[f"{folders}::TestFolders"], [str(HERE / "hollow_contract.py")]]
    for number, lie in enumerate(LIES):
        halves[number % 2] += [f"{folders}::Test_{lie.name}::{test}" for test in _of_feature(lie)]
    found: dict[tuple[str, str], str] = {}
    with ThreadPoolExecutor(len(halves)) as pool:
        for said in pool.map(_run, halves):
            found |= {(owner, name): outcome for outcome, owner, name in _RESULT.findall(said)}
            assert found, said
    return found


def _run(what: Sequence[str]) -> str:
    line = [sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", str(HERE), "-p", "no:cacheprovider"]
    options = ["-rA", "-q", "--tb=no", "--import-mode=importlib", "-W", "ignore"]
    said = subprocess.run(
        [*line, *options, *what],
        capture_output=True,
        text=True,
        timeout=560,
        check=False,
        # Plugins would cost more than the tests.
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        cwd=HERE.parents[1],
    )
    return said.stdout + said.stderr


def test_an_honest_driver_passes(results: Mapping[tuple[str, str], str]) -> None:
    honest = {name: outcome for (owner, name), outcome in results.items() if owner == "TestFolders"}

    assert {name: outcome for name, outcome in honest.items() if outcome != "PASSED"} == {}
    assert honest.keys() == TESTS.keys()


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.name)
def test_a_lying_driver_is_convicted_by_the_test_meant_for_it(results: Mapping[tuple[str, str], str], lie: Lie) -> None:
    failed = {test for test in _of_feature(lie) if results.get((f"Test_{lie.name}", test)) != "PASSED"}

    assert failed == set(lie.convicted_by)


def test_a_hollow_driver_fails_everything_but_what_nothing_can_disprove(
    results: Mapping[tuple[str, str], str],
) -> None:
    hollow = {name: outcome for (owner, name), outcome in results.items() if owner == "TestHollow"}

    convicting = {name for name, outcome in hollow.items() if outcome in ("FAILED", "ERROR")}
    assert TESTS.keys() - convicting == _HARMLESS


@pytest.mark.parametrize("test", TESTS)
def test_a_test_of_the_contract_convicts_somebody(test: str) -> None:
    assert any(test in lie.convicted_by for lie in LIES), f"{test} has not been seen to fail: add a lie"


@pytest.mark.parametrize("capability", Capability)
def test_a_capability_has_tests(capability: Capability) -> None:
    assert any(test.feature == feature_of(capability) for test in TESTS.values())
