"""A session of pytest that was begun ahead is as good as one that is begun when it is needed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from lab import catalogue, pytest_plugin
from lab.checking import prepared
from lab.results.record import Outcome, Record
from tests.checking.made import records

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


class Watch:
    """A plugin that notes what is collected."""

    def __init__(self) -> None:
        self.collected: list[Path] = []

    def pytest_collectstart(self, collector: pytest.Collector) -> None:
        self.collected.append(collector.path)


def register(config: pytest.Config, plugin: object) -> None:
    config.pluginmanager.register(plugin)


def run_of(session: Any, folder: Path) -> list[tuple[str, Outcome, str]]:
    """Run all checks of a folder in the session; what their records say."""
    wanted = [check.id for check in catalogue.load(folder).checks]
    before = len(records(session)) if (session.directory / "records.jsonl").exists() else 0
    pytest_plugin.run_checks(
        session, wanted, run="20260101-000000-0000", attempt=1, suites=folder, progress=lambda check: None
    )
    return [(each.check.rpartition("::")[2], each.outcome, each.reason) for each in records(session)[before:]]


def forget_imported() -> None:
    for name in [name for name in sys.modules if name.startswith("conformance")]:
        del sys.modules[name]


@pytest.mark.parametrize("broken", ["", "import nowhere_to_be_found\n"])
def test_checks_end_alike_ahead_and_not(session: object, suites: Callable[[str], Path], broken: str) -> None:
    folder = suites(broken + CHECKS)
    alone = run_of(session, folder)
    forget_imported()
    prepared.ahead(folder)

    told = run_of(session, folder)

    assert told == alone
    assert [outcome for _, outcome, _ in told] == (
        [Outcome.BROKEN, Outcome.BROKEN] if broken else [Outcome.PASSED, Outcome.FAILED]
    )


def test_files_that_were_found_ahead_are_not_looked_for_again(suites: Callable[[str], Path]) -> None:
    folder = suites(CHECKS)
    prepared.ahead(folder)
    files = tuple(folder.glob("*/*/test_*.py"))
    watch = Watch()

    prepared.run(folder, files, lambda config: register(config, watch))

    assert watch.collected == list(files)


def test_a_file_that_went_away_keeps_nobody_from_starting(
    suites: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = suites(CHECKS)
    load = catalogue.load

    def load_and_lose(path: Path) -> catalogue.Catalogue:
        loaded = load(path)
        for file in path.glob("*/*/test_*.py"):
            file.unlink()
        return loaded

    monkeypatch.setattr(catalogue, "load", load_and_lose)

    prepared.ahead(folder)

    assert [each.found for each in prepared._ahead] == [{}]


def test_checks_that_belong_to_no_cell_do_not_run(suites: Callable[[str], Path]) -> None:
    folder = suites(CHECKS)

    code = prepared.run(folder, tuple(folder.glob("*/*/test_*.py")), lambda config: None)

    assert code == pytest.ExitCode.INTERNAL_ERROR


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
    watch = Watch()

    files = tuple(folder.glob("*/*/test_*.py"))
    prepared.run(folder, files, lambda config: register(config, watch))

    assert files[0] in watch.collected
    assert [path for path in watch.collected if not path.is_relative_to(folder)] == []


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
