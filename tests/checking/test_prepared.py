"""A session of pytest that was begun ahead is as good as one that is begun when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from lab.checking import prepared
from lab.results.record import Outcome, Record

Run = Callable[..., Sequence[Record]]
CHECKS = """
@check("boot.core")
def test_well(guest): ...

@check("boot.core")
def test_not_well(guest):
    print("to nobody")
    assert 1 == 2
"""


@pytest.fixture(autouse=True)
def nothing_ahead() -> Iterator[None]:
    yield
    prepared._ahead.clear()
    prepared._catalogues.clear()


def register(config: pytest.Config, plugin: object) -> None:
    config.pluginmanager.register(plugin)


def outcomes(records: Sequence[Record]) -> dict[str, Outcome]:
    return {record.check.rpartition("::")[2]: record.outcome for record in records}


def test_checks_end_alike_ahead_and_not(session: object, suites: Callable[[str], Path], run: Run) -> None:
    alone = outcomes(run(CHECKS))
    prepared._ahead[:] = [prepared._begin(suites(CHECKS))]

    assert outcomes(run(CHECKS)) == alone == {"test_well": Outcome.PASSED, "test_not_well": Outcome.FAILED}


def test_a_session_serves_once(tmp_path: Path, suites: Callable[[str], Path]) -> None:
    folder = suites(CHECKS)
    prepared.ahead(folder)
    assert len(prepared._ahead) == 1

    prepared.run(folder, (), lambda config: None)

    assert prepared._ahead == []


def test_a_session_of_other_suites_is_not_used(tmp_path: Path, suites: Callable[[str], Path]) -> None:
    folder = suites(CHECKS)
    prepared.ahead(folder)
    seen: list[Path] = []

    prepared.run(tmp_path, (), lambda config: seen.append(config.rootpath))

    assert seen == [tmp_path]


def test_suites_that_cannot_be_read_keep_nobody_from_starting(tmp_path: Path) -> None:
    prepared.ahead(tmp_path / "nowhere")

    assert prepared._ahead == []


def test_no_code_of_the_suites_runs_ahead(suites: Callable[[str], Path], tmp_path: Path) -> None:
    mark = tmp_path / "ran"

    prepared.ahead(suites(f"open({str(mark)!r}, 'w')\n{CHECKS}"))

    assert not mark.exists()


def test_no_conftest_of_where_the_lab_was_started_runs(
    suites: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = suites(CHECKS)
    start = tmp_path / "start"
    start.mkdir()
    (start / "conftest.py").write_text("raise RuntimeError('of another project')\n")
    monkeypatch.chdir(start)

    prepared.ahead(folder)

    assert len(prepared._ahead) == 1


def test_folders_above_the_suites_are_not_collected(suites: Callable[[str], Path]) -> None:
    folder = suites(CHECKS)
    collected: list[Path] = []

    class Watch:
        def pytest_collectstart(self, collector: pytest.Collector) -> None:
            collected.append(collector.path)

    files = tuple(folder.glob("*/*/test_*.py"))
    prepared.run(folder, files, lambda config: register(config, Watch()))

    assert files[0] in collected
    assert [path for path in collected if not path.is_relative_to(folder)] == []


def test_what_checks_print_goes_nowhere(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    run(CHECKS)

    assert capfd.readouterr() == ("", "")


def test_whatever_is_wrong_with_pytest_itself_is_an_exit_code(suites: Callable[[str], Path]) -> None:
    class Broken:
        def pytest_collection_modifyitems(self) -> None:
            raise RuntimeError("broken")

    folder = suites(CHECKS)
    files = tuple(folder.glob("*/*/test_*.py"))

    code = prepared.run(folder, files, lambda config: register(config, Broken()))

    assert code == pytest.ExitCode.INTERNAL_ERROR
