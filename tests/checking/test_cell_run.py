"""Checks in a cell: every way one can end, and whose fault that is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from lab.contracts import Capability, MachineState, Realness
from lab.errors import (
    Blame,
    GuestLoginRefused,
    GuestPanicked,
    GuestUnreachable,
    HypervisorRefused,
    LabDiskFull,
    LabError,
    MachineVanished,
)
from lab.results.record import Outcome, Record
from tests.checking.conftest import FakeMachine
from tests.checking.made import body, one

Run = Callable[..., Sequence[Record]]


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


def test_a_record_says_where_when_and_how(run: Run, session: Any) -> None:
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


def test_a_cold_check_gets_a_cold_machine_and_comes_last(run: Run, session: Any) -> None:
    text = body("pass", ", cold=True") + body("pass").replace("test_x", "test_y")
    found = run(text)
    assert [record.check.partition("::")[2] for record in found] == ["test_y", "test_x"]
    assert [record.warm for record in found] == [True, False]
    assert session.asked == [False, True]


def test_a_guest_that_does_not_come_up_stops_the_cell(run: Run, session: Any) -> None:
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
    run: Run, session: Any, fault: LabError, blame: Blame
) -> None:
    session.fails = fault
    assert one(run(body("pass")))[:2] == (Outcome.BROKEN, blame)


def test_a_bug_in_bring_up_is_not_blamed_on_the_check(run: Run, session: Any) -> None:
    session.fails = AttributeError("'NoneType' object has no attribute 'x'")
    outcome, blame, reason = one(run(body("pass")))
    assert (outcome, blame) == (Outcome.BROKEN, Blame.LAB)
    assert "bringing the guest up failed: AttributeError" in reason


@pytest.mark.parametrize("fault", ["GuestUnreachable", "GuestPanicked", "MachineVanished", "HostKeyChanged"])
def test_a_lost_guest_stops_the_cell(run: Run, fault: str) -> None:
    found = run(body(f"raise {fault}('lost')") + body("pass").replace("test_x", "test_y"))
    assert found[1].outcome is Outcome.BLOCKED
    assert found[1].reason == f"the cell was stopped by: {fault}: lost"


@pytest.mark.parametrize("fault", ["GuestUnreachable", "GuestPanicked", "GuestRebooted"])
def test_a_guest_lost_on_emulated_virtualisation_proves_nothing_about_the_product(
    run: Run, session: Any, fault: str
) -> None:
    session.emulates_virtualisation = True
    outcome, blame, reason = one(run(body(f"raise {fault}('lost')")))
    assert (outcome, blame) == (Outcome.BROKEN, Blame.LAB)
    assert reason == f"lost on emulated virtualisation, which loses guests by itself: {fault}: lost"


def test_what_a_guest_does_wrong_on_emulated_virtualisation_is_a_failure(run: Run, session: Any) -> None:
    session.emulates_virtualisation = True
    assert one(run(body("assert 1 == 2, 'no'"))) == (Outcome.FAILED, Blame.PRODUCT, "no")


@pytest.mark.parametrize(
    "fault", ["CommandTimedOut('a')", "GuestCommandFailed('a')", "HypervisorRefused('a')", "OSError()"]
)
def test_a_fault_that_leaves_the_guest_well_does_not_stop_the_cell(run: Run, fault: str) -> None:
    found = run(body(f"raise {fault}") + body("pass").replace("test_x", "test_y"))
    assert found[1].outcome is Outcome.PASSED


PANIC = "[    1.000000] Linux version 6.1\\n[    9.000000] Kernel panic - not syncing: sysrq triggered crash\\n"


def test_a_lost_connection_is_explained_by_a_panic_that_the_hypervisor_saw(run: Run) -> None:
    text = f"guest.machine.now = MachineState.CRASHED; guest.machine.log = b'{PANIC}'; raise GuestUnreachable('reset')"
    outcome, blame, reason = one(run(body(text)))
    assert (outcome, blame) == (Outcome.FAILED, Blame.GUEST)
    assert reason == (
        "GuestPanicked: the kernel of machine panicked, seen by the hypervisor: kernel panic: sysrq triggered crash"
    )


def test_a_panic_that_only_the_console_tells_of_does_not_blame_the_guest(run: Run) -> None:
    outcome, blame, reason = one(run(body(f"guest.machine.log = b'{PANIC}'; raise GuestUnreachable('reset')")))
    assert (outcome, blame) == (Outcome.FAILED, Blame.PRODUCT)
    assert reason == "GuestUnreachable: reset; a kernel panic: sysrq triggered crash, claimed by console only"


def test_a_lost_connection_is_explained_by_a_machine_that_is_gone(run: Run) -> None:
    text = body("guest.machine.now = MachineState.GONE; guest.machine.log = b'up'; raise GuestUnreachable('reset')")
    outcome, _, reason = one(run(text))
    assert outcome is Outcome.BROKEN
    assert reason.startswith("MachineVanished: machine ended by itself while a check ran")
    assert "'up'" in reason


def test_a_machine_that_ends_before_its_guest_is_handed_out_is_not_the_products_fault(run: Run, session: Any) -> None:
    session.machine = FakeMachine()
    session.machine.now = MachineState.GONE
    session.fails = GuestUnreachable("reset while facts were read")

    first, second = run(body("pass") + body("pass").replace("test_x", "test_y"))

    assert (first.outcome, first.blame) == (Outcome.BROKEN, Blame.HYPERVISOR)
    assert first.reason.startswith("MachineVanished: machine ended by itself while a check ran")
    assert second.outcome is Outcome.BLOCKED


@pytest.mark.parametrize(
    "statement",
    ["raise CommandTimedOut('dd')", "raise HypervisorRefused('no monitor')", "assert 1 == 2, 'not the same'"],
)
def test_what_a_check_fails_with_when_its_machine_has_ended_is_not_the_products_fault(run: Run, statement: str) -> None:
    outcome, blame, reason = one(run(body(f"guest.machine.now = MachineState.GONE; {statement}")))
    assert (outcome, blame) == (Outcome.BROKEN, Blame.HYPERVISOR)
    assert reason.startswith("MachineVanished: machine ended by itself while a check ran, and the check failed with: ")


def test_a_guest_that_rebooted_by_itself_fails_the_check_and_is_replaced(run: Run, session: Any) -> None:
    found = run(body("guest.rebooted = True") + body("pass").replace("test_x", "test_y"))
    assert (found[0].outcome, found[0].blame) == (Outcome.FAILED, Blame.GUEST)
    assert found[0].reason == "GuestRebooted: the guest rebooted by itself"
    assert found[1].outcome is Outcome.PASSED
    assert session.put_away_count == 1


def test_a_check_that_runs_too_long_is_broken_and_gets_a_new_machine(run: Run, session: Any) -> None:
    outcome, blame, reason = one(run(body("waiting.pause(30)", ", timeout_s=0.2")))
    assert (outcome, blame) == (Outcome.BROKEN, Blame.SUITE)
    assert reason.endswith("::test_x ran longer than its 0.2 s")
    assert session.put_away_count == 1


def test_a_feature_that_the_pair_cannot_have_needs_no_machine(run: Run, session: Any) -> None:
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


def test_a_capability_that_the_host_refuses_is_unsupported_in_its_own_words(run: Run, session: Any) -> None:
    session.hypervisor.refused = {Capability.PAUSES: "this licence has no pause"}
    found = run(body("pass", ", needs=(Capability.PAUSES,)"))
    assert one(found) == (Outcome.UNSUPPORTED, Blame.NOBODY, "this licence has no pause")
    assert session.asked == []


def test_who_can_of_a_capability_that_was_not_named_is_a_bug_of_the_check(run: Run) -> None:
    outcome, blame, reason = one(run(body("who_can(machine, InjectsNmi)", fixtures="machine")))
    assert (outcome, blame) == (Outcome.BROKEN, Blame.SUITE)
    assert reason == "TypeError: name InjectsNmi in the check's needs"


def test_a_check_of_two_machines_gets_a_peer_beside_its_guest(run: Run, session: Any) -> None:
    found = run(body("assert peer is not guest, 'the same'", ", machines=2", fixtures="guest, peer"))
    assert one(found)[0] is Outcome.PASSED
    assert len(session.machines) == 2


def test_a_check_that_keeps_no_memory_for_a_peer_gets_none(run: Run, session: Any) -> None:
    assert one(run(body("pass", fixtures="peer"))) == (
        Outcome.BROKEN,
        Blame.SUITE,
        "ValueError: a check that asks for the peer says machines=2, so that memory is kept for it",
    )
    assert session.second is None


def test_a_peer_that_reboots_by_itself_fails_the_check(run: Run, session: Any) -> None:
    found = run(body("peer.rebooted = True", ", machines=2", fixtures="peer"))
    assert one(found) == (Outcome.FAILED, Blame.GUEST, "GuestRebooted: the guest rebooted by itself")


def test_what_is_spoilt_is_used_last_and_by_nobody_else(run: Run, session: Any) -> None:
    text = body("pass", ", spoils=True") + body("pass", ", cold=True").replace("test_x", "test_y")
    found = run(text + body("pass", ", spoils=True").replace("test_x", "test_z"))
    assert [record.check.partition("::")[2] for record in found] == ["test_y", "test_x", "test_z"]
    assert session.put_away_count == 2


def test_what_did_not_apply_spoilt_nothing(run: Run, session: Any) -> None:
    run(body("not_applicable('no such hardware')", ", spoils=True"))
    assert session.put_away_count == 0
