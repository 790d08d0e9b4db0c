"""What checks leave behind: records, evidence, progress; and what ends a run of them."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from lab import catalogue, pytest_plugin
from lab.checking import outcomes
from lab.errors import Blame, ConfigurationError, LabDiskFull
from lab.results.record import Outcome, Record
from tests.checking.made import body, one, records

Run = Callable[..., Sequence[Record]]


def test_reasons_are_bounded_and_free_of_escapes(run: Run) -> None:
    (record,) = run(body(r"raise GuestCommandFailed('\x1b[31mred\n\u202e' + 'a' * 5000)"))
    assert len(record.reason) <= outcomes.LONGEST_REASON
    assert record.reason.isprintable()
    assert record.reason.startswith(r"GuestCommandFailed: \x1b[31mred | \u202eaaa")


def test_evidence_is_kept_beside_the_record_under_a_safe_name(run: Run, session: Any) -> None:
    (record,) = run(body("evidence.attach('../../Screen Shot.PNG', b'x')", fixtures="guest, evidence"))
    (path,) = record.evidence
    assert path.startswith("cells/host/guest/profile/attempt-1/evidence/conformance/boot/made")
    assert path.endswith("/x/screen-shot.png")
    assert (session.directory.parents[4] / path).read_bytes() == b"x"


def test_a_failure_leaves_its_traceback_as_evidence(run: Run, session: Any) -> None:
    (record,) = run(body("assert 1 == 2, 'no'"))
    (path,) = record.evidence
    assert "assert 1 == 2" in (session.directory.parents[4] / path).read_text()


def test_a_file_that_cannot_be_imported_breaks_its_checks(run: Run) -> None:
    outcome, blame, reason = one(run("import nothing_of_that_name\n" + textwrap.dedent(body("pass"))))
    assert (outcome, blame) == (Outcome.BROKEN, Blame.SUITE)
    assert "No module named 'nothing_of_that_name'" in reason


def test_an_unknown_fixture_is_a_bug_of_the_check(run: Run) -> None:
    outcome, blame, reason = one(run(body("pass", fixtures="gest")))
    assert (outcome, blame) == (Outcome.BROKEN, Blame.SUITE)
    assert "gest" in reason


def test_a_fault_of_a_cleanup_counts_although_the_check_passed(run: Run) -> None:
    text = """
        @pytest.fixture
        def thing(guest):
            yield 1
            raise HypervisorRefused("cannot detach")

    """ + body("pass", fixtures="thing")
    assert one(run(text)) == (Outcome.FAILED, Blame.HYPERVISOR, "HypervisorRefused: cannot detach")


def test_exactly_the_wanted_checks_run(run: Run) -> None:
    found = run(body("pass") + body("pass").replace("test_x", "test_y"), names=["test_y"])
    assert [record.check.partition("::")[2] for record in found] == ["test_y"]


def test_a_check_that_is_not_there_is_refused_before_anything_starts(
    session: Any, suites: Callable[[str], Path]
) -> None:
    folder = suites(body("pass"))
    with pytest.raises(ConfigurationError, match=r"no check 'conformance/boot/test_a.py::test_b'"):
        pytest_plugin.run_checks(
            session, ["conformance/boot/test_a.py::test_b"], run="r", attempt=1, suites=folder, progress=print
        )
    assert session.asked == []


def test_an_interruption_goes_through_and_leaves_what_was_done(run: Run, session: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(body("pass") + body("raise KeyboardInterrupt").replace("test_x", "test_y"))
    assert [record.check.partition("::")[2] for record in records(session)] == ["test_x"]


def test_a_record_that_cannot_be_written_ends_the_cell(run: Run, session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: object, record: Record) -> None:
        raise LabDiskFull("no space left on this machine while writing records.jsonl")

    monkeypatch.setattr("lab.results.store.RecordFile.append", full)
    with pytest.raises(LabDiskFull, match=r"writing records\.jsonl"):
        run(body("pass") + body("pass").replace("test_x", "test_y"))
    assert len(session.asked) == 1


def test_progress_names_each_check_when_it_is_done(session: Any, suites: Callable[[str], Path]) -> None:
    folder = suites(body("pass"))
    (check,) = catalogue.load(folder).checks
    told: list[str] = []
    pytest_plugin.run_checks(session, [check.id], run="r", attempt=1, suites=folder, progress=told.append)
    assert told == [check.id]


def test_no_checks_is_no_run(session: Any, suites: Callable[[str], Path]) -> None:
    status = pytest_plugin.run_checks(session, [], run="r", attempt=1, suites=suites(""), progress=print)
    assert status == pytest.ExitCode.NO_TESTS_COLLECTED
    assert records(session) == []


def test_the_feature_of_a_check_is_told(suites: Callable[[str], Path]) -> None:
    folder = suites(body("pass"))
    (check,) = catalogue.load(folder).checks
    assert pytest_plugin.feature_of(check.id, folder) == "boot.core"
    assert pytest_plugin.feature_of("conformance/boot/test_a.py::test_b", folder) == "unknown"


def test_a_record_is_one_line_of_json(run: Run, session: Any) -> None:
    run(body("assert False, 'a\\nb'"))
    (line,) = (session.directory / "records.jsonl").read_text().splitlines()
    assert json.loads(line)["reason"] == "a | b"
