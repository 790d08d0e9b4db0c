"""The pytest plugin: every way a check can end, and whose fault that is; with a session that needs no machine."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from lab import pytest_plugin
from lab.checking import handed, outcomes
from lab.contracts import Capability, Cell, MachineState, Realness
from lab.errors import (
    Blame,
    ConfigurationError,
    GuestLoginRefused,
    GuestPanicked,
    GuestRebooted,
    HypervisorRefused,
    LabDiskFull,
    LabError,
    MachineVanished,
)
from lab.results.record import Outcome, Record

REPOSITORY = Path(__file__).parents[1]
FEATURES = """\
drivers: {fake: qemu}
features:
- {id: boot.core, area: Boot, meaning: Boots, families: [linux], hypervisors: [qemu]}
- {id: channel.nmi, area: Channels, meaning: NMI, families: [linux], hypervisors: [hyperv]}
"""
HEAD = """
import pytest
from lab.errors import *
from lab.suite import *

"""
NUMBERS = itertools.count()


class FakeMachine:
    """A machine that can be paused and nothing else."""

    name = "machine"

    def __init__(self) -> None:
        self.now = MachineState.RUNNING
        self.log = b""

    def state(self) -> MachineState:
        return self.now

    def console(self) -> bytes:
        return self.log

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class FakeGuest:
    """A guest that answers, and whose boot a check may change."""

    inspect = "inspector"

    def __init__(self, machine: FakeMachine) -> None:
        self.machine = machine
        self.rebooted = False

    def assert_same_boot(self) -> None:
        if self.rebooted:
            raise GuestRebooted("the guest rebooted by itself")


@dataclass
class FakeHypervisor:
    refused: Mapping[Capability, str] = field(default_factory=dict)

    def limits(self) -> Mapping[Capability, str]:
        return self.refused


@dataclass
class FakeSession:
    """What `lab.provisioning.bring_up.CellSession` is to the checks."""

    directory: Path
    fails: Exception | None = None
    hypervisor: FakeHypervisor = field(default_factory=FakeHypervisor)
    cell: Cell = field(default_factory=lambda: Cell("host", "guest", "profile"))
    host: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(driver="fake"))
    entry: SimpleNamespace = field(
        default_factory=lambda: SimpleNamespace(family="linux", channel=SimpleNamespace(port=22))
    )
    is_warm: bool = False
    realness: Realness = Realness.SIMULATED
    machine: FakeMachine | None = None
    asked: list[bool] = field(default_factory=list)
    put_away_count: int = 0
    _guest: FakeGuest | None = None

    def guest(self, *, cold: bool) -> FakeGuest:
        self.asked.append(cold)
        if self.fails is not None:
            raise self.fails
        self.is_warm = not cold
        if self._guest is None:
            self.machine = FakeMachine()
            self._guest = FakeGuest(self.machine)
        return self._guest

    def put_away(self) -> None:
        self.put_away_count += 1
        self._guest = self.machine = None


@pytest.fixture
def session(tmp_path: Path) -> FakeSession:
    directory = tmp_path / "run" / "cells" / "host" / "guest" / "profile" / "attempt-1"
    directory.mkdir(parents=True)
    return FakeSession(directory)


@pytest.fixture
def suites(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    before = set(sys.modules)

    def make(text: str) -> Path:
        folder = tmp_path / "suites" / "conformance" / "boot"
        folder.mkdir(parents=True, exist_ok=True)
        (tmp_path / "suites" / "features.yaml").write_text(FEATURES)
        # A name of its own, because pytest keeps the modules of one process by their names.
        (folder / f"test_made{next(NUMBERS)}.py").write_text(HEAD + textwrap.dedent(text))
        return tmp_path / "suites"

    yield make
    for name in set(sys.modules) - before:
        if name.startswith("conformance"):
            del sys.modules[name]


Run = Callable[..., Sequence[Record]]


@pytest.fixture
def run(session: FakeSession, suites: Callable[[str], Path]) -> Run:
    """Runs the checks of one text and returns their records."""

    def checks(text: str, names: Sequence[str] | None = None) -> Sequence[Record]:
        from lab import catalogue

        folder = suites(text)
        ids = [check.id for check in catalogue.load(folder).checks]
        wanted = [name for name in ids if names is None or name.partition("::")[2] in names]
        pytest_plugin.run_checks(
            session, wanted, run="20260101-000000-0000", attempt=1, suites=folder, progress=lambda check: None
        )
        return records(session)

    return checks


def records(session: FakeSession) -> Sequence[Record]:
    path = session.directory / "records.jsonl"
    return [Record.parse(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def one(found: Sequence[Record]) -> tuple[Outcome, Blame, str]:
    (record,) = found
    return record.outcome, record.blame, record.reason


def body(statement: str, arguments: str = "", fixtures: str = "guest") -> str:
    return f"""
        @check("boot.core"{arguments})
        def test_x({fixtures}):
            {statement}
    """


@pytest.mark.parametrize(
    ("statement", "outcome", "blame", "reason"),
    [
        ("pass", Outcome.PASSED, Blame.NOBODY, ""),
        ("assert 1 == 2, 'one is not two'", Outcome.FAILED, Blame.PRODUCT, "one is not two"),
        ("assert 1 == 2", Outcome.FAILED, Blame.PRODUCT, "assert 1 == 2"),
        ("pytest.fail('no good')", Outcome.FAILED, Blame.PRODUCT, "no good"),
        ("pytest.skip('not today')", Outcome.SKIPPED, Blame.NOBODY, "not today"),
        ("unsupported('no such device')", Outcome.UNSUPPORTED, Blame.NOBODY, "no such device"),
        ("raise NotSupported('the host says no')", Outcome.UNSUPPORTED, Blame.NOBODY, "the host says no"),
        ("not_applicable('no firmware')", Outcome.NOT_APPLICABLE, Blame.NOBODY, "no firmware"),
        ("blocked('stands on another')", Outcome.BLOCKED, Blame.NOBODY, "stands on another"),
        ("{}['a']", Outcome.BROKEN, Blame.SUITE, "KeyError: 'a'"),
        ("raise OSError('no')", Outcome.BROKEN, Blame.SUITE, "OSError: no"),
        ("raise CommandTimedOut('sleep')", Outcome.FAILED, Blame.PRODUCT, "CommandTimedOut: sleep"),
        ("raise GuestCommandFailed('ls')", Outcome.FAILED, Blame.PRODUCT, "GuestCommandFailed: ls"),
        ("raise GuestPanicked('oops')", Outcome.FAILED, Blame.GUEST, "GuestPanicked: oops"),
        ("raise GuestUnreachable('gone')", Outcome.FAILED, Blame.PRODUCT, "GuestUnreachable: gone"),
        ("raise GuestLoginRefused('key')", Outcome.BROKEN, Blame.LAB, "GuestLoginRefused: key"),
        ("raise HypervisorRefused('busy')", Outcome.FAILED, Blame.HYPERVISOR, "HypervisorRefused: busy"),
        ("raise MachineVanished('killed')", Outcome.BROKEN, Blame.HYPERVISOR, "MachineVanished: killed"),
        ("raise LabDiskFull('full')", Outcome.BROKEN, Blame.LAB, "LabDiskFull: full"),
        ("raise ConfigurationError('typo')", Outcome.BROKEN, Blame.CONFIGURATION, "ConfigurationError: typo"),
        ("waiting.until(lambda: 0, what='it', timeout_s=0)", Outcome.FAILED, Blame.PRODUCT, "waited 0.0 s for it"),
    ],
)
def test_each_end_has_its_outcome_and_blame(
    run: Run, statement: str, outcome: Outcome, blame: Blame, reason: str
) -> None:
    assert one(run(body(statement))) == (outcome, blame, reason)


def test_a_record_says_where_when_and_how(run: Run, session: FakeSession) -> None:
    (record,) = run(body("measured.add('speed', 2.5, 'MiB/s', better='higher')", fixtures="guest, measured"))
    assert (record.run, record.cell, record.attempt) == ("20260101-000000-0000", "host/guest/profile", 1)
    assert record.feature == "boot.core"
    assert record.check.endswith("::test_x")
    assert record.check.startswith("conformance/boot/test_made")
    assert record.realness is Realness.SIMULATED
    assert record.warm is True
    assert record.started.utcoffset() is not None
    assert 0 <= record.seconds < 60
    assert record.measured["speed"].model_dump() == {"value": 2.5, "unit": "MiB/s", "better": "higher"}


def test_a_cold_check_gets_a_cold_machine_and_comes_last(run: Run, session: FakeSession) -> None:
    text = body("pass", ", cold=True") + body("pass").replace("test_x", "test_y")
    found = run(text)
    assert [record.check.partition("::")[2] for record in found] == ["test_y", "test_x"]
    assert [record.warm for record in found] == [True, False]
    assert session.asked == [False, True]


def test_a_guest_that_does_not_come_up_stops_the_cell(run: Run, session: FakeSession) -> None:
    session.fails = GuestPanicked("no root file system")
    first, second = run(body("pass") + body("pass").replace("test_x", "test_y"))
    assert (first.outcome, first.blame) == (Outcome.FAILED, Blame.GUEST)
    assert first.reason == "GuestPanicked: no root file system"
    assert (second.outcome, second.blame) == (Outcome.BLOCKED, Blame.GUEST)
    assert second.reason == "the cell was stopped by: GuestPanicked: no root file system"
    assert session.asked == [False]


@pytest.mark.parametrize(
    ("fault", "blame"),
    [
        (HypervisorRefused("port taken"), Blame.HYPERVISOR),
        (LabDiskFull("full"), Blame.LAB),
        (GuestLoginRefused("key"), Blame.LAB),
        (MachineVanished("killed"), Blame.HYPERVISOR),
    ],
)
def test_what_keeps_a_machine_from_being_made_is_never_a_failure(
    run: Run, session: FakeSession, fault: LabError, blame: Blame
) -> None:
    session.fails = fault
    assert one(run(body("pass")))[:2] == (Outcome.BROKEN, blame)


def test_a_bug_in_bring_up_is_not_blamed_on_the_check(run: Run, session: FakeSession) -> None:
    session.fails = AttributeError("'NoneType' object has no attribute 'x'")
    outcome, blame, reason = one(run(body("pass")))
    assert (outcome, blame) == (Outcome.BROKEN, Blame.LAB)
    assert "bringing the guest up failed: AttributeError" in reason


@pytest.mark.parametrize("fault", ["GuestUnreachable", "GuestPanicked", "MachineVanished", "HostKeyChanged"])
def test_a_lost_guest_stops_the_cell(run: Run, fault: str) -> None:
    found = run(body(f"raise {fault}('lost')") + body("pass").replace("test_x", "test_y"))
    assert found[1].outcome is Outcome.BLOCKED
    assert found[1].reason == f"the cell was stopped by: {fault}: lost"


@pytest.mark.parametrize(
    "fault", ["CommandTimedOut('a')", "GuestCommandFailed('a')", "HypervisorRefused('a')", "OSError()"]
)
def test_a_fault_that_leaves_the_guest_well_does_not_stop_the_cell(run: Run, fault: str) -> None:
    found = run(body(f"raise {fault}") + body("pass").replace("test_x", "test_y"))
    assert found[1].outcome is Outcome.PASSED


def test_a_lost_connection_is_explained_by_the_console(run: Run) -> None:
    panic = "[    1.0] Linux version 6.1\\n[    9.0] Kernel panic - not syncing: sysrq triggered crash\\n"
    text = body(f"guest.machine.log = b'{panic}'; raise GuestUnreachable('reset')")
    outcome, blame, reason = one(run(text))
    assert (outcome, blame) == (Outcome.FAILED, Blame.GUEST)
    assert reason.startswith("GuestPanicked: the kernel of machine panicked")


def test_a_lost_connection_is_explained_by_a_machine_that_is_gone(run: Run) -> None:
    text = body("guest.machine.now = MachineState.GONE; guest.machine.log = b'up'; raise GuestUnreachable('reset')")
    outcome, _, reason = one(run(text))
    assert outcome is Outcome.BROKEN
    assert reason.startswith("MachineVanished: machine ended by itself while a check ran")
    assert "'up'" in reason


def test_a_guest_that_rebooted_by_itself_fails_the_check_and_is_replaced(run: Run, session: FakeSession) -> None:
    found = run(body("guest.rebooted = True") + body("pass").replace("test_x", "test_y"))
    assert (found[0].outcome, found[0].blame) == (Outcome.FAILED, Blame.GUEST)
    assert found[0].reason == "GuestRebooted: the guest rebooted by itself"
    assert found[1].outcome is Outcome.PASSED
    assert session.put_away_count == 1


def test_a_check_that_runs_too_long_is_broken_and_gets_a_new_machine(run: Run, session: FakeSession) -> None:
    outcome, blame, reason = one(run(body("waiting.pause(30)", ", timeout_s=0.2")))
    assert (outcome, blame) == (Outcome.BROKEN, Blame.SUITE)
    assert reason.endswith("::test_x ran longer than its 0.2 s")
    assert session.put_away_count == 1


def test_a_feature_that_the_pair_cannot_have_needs_no_machine(run: Run, session: FakeSession) -> None:
    text = body("pass").replace("boot.core", "channel.nmi")
    reason = "channel.nmi is not a feature of this kind of hypervisor (qemu)"
    assert one(run(text)) == (Outcome.NOT_APPLICABLE, Blame.NOBODY, reason)
    assert session.asked == []


def test_a_capability_that_the_driver_lacks_is_not_applicable(run: Run) -> None:
    found = run(body("pass", ", needs=(Capability.NMI,)"))
    assert one(found) == (Outcome.NOT_APPLICABLE, Blame.NOBODY, "driver fake has no nmi")


def test_a_capability_that_the_machine_has_is_there(run: Run) -> None:
    assert (
        one(run(body("who_can(machine, Pauses).pause()", ", needs=(Capability.PAUSES,)", "machine")))[0]
        is Outcome.PASSED
    )


def test_a_capability_that_the_host_refuses_is_unsupported_in_its_own_words(run: Run, session: FakeSession) -> None:
    session.hypervisor = FakeHypervisor({Capability.PAUSES: "this licence has no pause"})
    found = run(body("pass", ", needs=(Capability.PAUSES,)"))
    assert one(found) == (Outcome.UNSUPPORTED, Blame.NOBODY, "this licence has no pause")
    assert session.asked == []


def test_who_can_of_a_capability_that_was_not_named_is_a_bug_of_the_check(run: Run) -> None:
    outcome, blame, reason = one(run(body("who_can(machine, InjectsNmi)", fixtures="machine")))
    assert (outcome, blame) == (Outcome.BROKEN, Blame.SUITE)
    assert reason == "TypeError: name InjectsNmi in the check's needs"


def test_reasons_are_bounded_and_free_of_escapes(run: Run) -> None:
    (record,) = run(body(r"raise GuestCommandFailed('\x1b[31mred\n\u202e' + 'a' * 5000)"))
    assert len(record.reason) <= outcomes.LONGEST_REASON
    assert record.reason.isprintable()
    assert record.reason.startswith(r"GuestCommandFailed: \x1b[31mred | \u202eaaa")


def test_evidence_is_kept_beside_the_record_under_a_safe_name(run: Run, session: FakeSession) -> None:
    (record,) = run(body("evidence.attach('../../Screen Shot.PNG', b'x')", fixtures="guest, evidence"))
    (path,) = record.evidence
    assert path.startswith("cells/host/guest/profile/attempt-1/evidence/conformance/boot/made")
    assert path.endswith("/x/screen-shot.png")
    assert (session.directory.parents[4] / path).read_bytes() == b"x"


def test_a_failure_leaves_its_traceback_as_evidence(run: Run, session: FakeSession) -> None:
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
    session: FakeSession, suites: Callable[[str], Path]
) -> None:
    folder = suites(body("pass"))
    with pytest.raises(ConfigurationError, match=r"no check 'conformance/boot/test_a.py::test_b'"):
        pytest_plugin.run_checks(
            session, ["conformance/boot/test_a.py::test_b"], run="r", attempt=1, suites=folder, progress=print
        )
    assert session.asked == []


def test_an_interruption_goes_through_and_leaves_what_was_done(run: Run, session: FakeSession) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(body("pass") + body("raise KeyboardInterrupt").replace("test_x", "test_y"))
    assert [record.check.partition("::")[2] for record in records(session)] == ["test_x"]


def test_a_record_that_cannot_be_written_ends_the_cell(
    run: Run, session: FakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: object, record: Record) -> None:
        raise LabDiskFull("no space left on this machine while writing records.jsonl")

    monkeypatch.setattr("lab.results.store.RecordFile.append", full)
    with pytest.raises(LabDiskFull, match=r"writing records\.jsonl"):
        run(body("pass") + body("pass").replace("test_x", "test_y"))
    assert len(session.asked) == 1


def test_progress_names_each_check_when_it_is_done(session: FakeSession, suites: Callable[[str], Path]) -> None:
    from lab import catalogue

    folder = suites(body("pass"))
    (check,) = catalogue.load(folder).checks
    told: list[str] = []
    pytest_plugin.run_checks(session, [check.id], run="r", attempt=1, suites=folder, progress=told.append)
    assert told == [check.id]


def test_no_checks_is_no_run(session: FakeSession, suites: Callable[[str], Path]) -> None:
    status = pytest_plugin.run_checks(session, [], run="r", attempt=1, suites=suites(""), progress=print)
    assert status == pytest.ExitCode.NO_TESTS_COLLECTED
    assert records(session) == []


def test_the_feature_of_a_check_is_told(suites: Callable[[str], Path]) -> None:
    from lab import catalogue

    folder = suites(body("pass"))
    (check,) = catalogue.load(folder).checks
    assert pytest_plugin.feature_of(check.id, folder) == "boot.core"
    assert pytest_plugin.feature_of("conformance/boot/test_a.py::test_b", folder) == "unknown"


# ---------------------------------------------------------------------------------------------------------
# As an installed plugin


def other_project(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "pytest", "--disable-plugin-autoload", "-p", "lab.pytest_plugin", *arguments]
    return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)


def test_the_plugin_has_no_effect_in_another_project(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import sys\n"
        "def test_it():\n"
        "    heavy = ('lab.checking', 'lab.inventory', 'lab.provisioning', 'pydantic', 'paramiko')\n"
        "    assert [name for name in heavy if name in sys.modules] == []\n"
        "def test_no_fixture(guest): ...\n"
    )
    done = other_project(tmp_path, "-q")
    assert "fixture 'guest' not found" in done.stdout
    assert "1 passed, 1 error" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir() if path.name[0] not in "._") == ["test_it.py"]


def test_half_of_the_options_is_an_error(tmp_path: Path) -> None:
    done = other_project(tmp_path, "--lab-cell", "a/b/c")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "--lab-inventory and --lab-cell belong together" in done.stderr


def test_a_cell_that_the_inventory_does_not_have_is_an_error(tmp_path: Path) -> None:
    done = other_project(
        tmp_path, "--lab-inventory", f"{REPOSITORY}/inventories/local", "--lab-cell", "qemu/nosuch/pc-bios"
    )
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "has no guest 'nosuch'; it has " in done.stderr


# ---------------------------------------------------------------------------------------------------------
# What a check is handed


def test_measurements_refuse_what_no_reader_could_use() -> None:
    measured = handed.Measurements()
    measured.add("a", 1, "s")
    with pytest.raises(ValueError, match="a was measured already"):
        measured.add("a", 2, "s")
    with pytest.raises(ValueError, match="'A b' is not a name for a measurement"):
        measured.add("A b", 2, "s")
    with pytest.raises(ValueError, match="b is nan, which is not a number"):
        measured.add("b", float("nan"), "s")


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("a.txt", "a.txt"),
        ("../../etc/passwd", "etc-passwd"),
        ("", "evidence"),
        ("\x00/\x1b[m", "m"),
        ("..", "evidence"),
    ],
)
def test_evidence_never_leaves_its_folder(tmp_path: Path, name: str, kept: str) -> None:
    path = handed.Evidence(tmp_path / "e").attach(name, "text")
    assert path == tmp_path / "e" / kept
    assert path.read_text() == "text"


def test_evidence_is_bounded(tmp_path: Path) -> None:
    evidence = handed.Evidence(tmp_path)
    path = evidence.attach("big", b"x" * (handed.LARGEST_EVIDENCE + 1))
    assert path.stat().st_size == handed.LARGEST_EVIDENCE
    assert path.read_bytes().endswith(b"(the rest was cut off)\n")
    for _ in range(handed.MOST_EVIDENCE - 1):
        evidence.attach("a.txt", "x")
    assert len(set(evidence.files())) == handed.MOST_EVIDENCE
    with pytest.raises(ValueError, match="at most 16 files"):
        evidence.attach("a.txt", "x")


def test_a_record_is_one_line_of_json(run: Run, session: FakeSession) -> None:
    run(body("assert False, 'a\\nb'"))
    (line,) = (session.directory / "records.jsonl").read_text().splitlines()
    assert json.loads(line)["reason"] == "a | b"
