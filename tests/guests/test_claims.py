"""A console is a claim: what a program of the guest writes there looks like the kernel's own lines."""

from __future__ import annotations

import pytest

from lab.errors import Blame, GuestPanicked, GuestUnreachable
from lab.guests import claims, triage
from lab.guests.channels.ssh import Answer

KERNEL = "[    0.000000] Linux version 6.1.0-40-cloud-amd64 (x@y) (gcc-12)\n"
USER_SPACE = "[    2.500000] Run /sbin/init as init process\nWelcome to Debian GNU/Linux 12 (bookworm)!\n"
LOGIN = "\nDebian GNU/Linux 12 db1 ttyS0\n\ndb1 login: "
FORGED = (
    "[   99.000000] Kernel panic - not syncing: forged by a program\n"
    "[   99.000100] CPU: 0 PID: 1 Comm: init Not tainted\n"
    "[   99.000600] ---[ end Kernel panic - not syncing: forged by a program ]---\n"
)


def judged(*parts: str) -> triage.Triage:
    return triage.triage("".join(parts).encode())


def test_a_log_by_itself_is_a_claim() -> None:
    found = judged(KERNEL, USER_SPACE, FORGED)

    assert found.as_json()["class"] == "kernel-panic"
    assert found.as_json()["proof"] == "claimed by console only"


def test_a_claimed_panic_of_a_guest_whose_ssh_server_greets_is_none() -> None:
    found = claims.weighed(judged(KERNEL, USER_SPACE, LOGIN, "\n", FORGED), crashed=False, answer=Answer.BANNER)

    assert (found.failure_class, found.blame, found.cause) == ("none", Blame.NOBODY, "")


def test_a_greeting_guest_that_lets_nobody_in_is_not_called_panicked() -> None:
    log = (KERNEL + USER_SPACE + FORGED).encode()
    found = claims.weighed(triage.triage(log), crashed=False, answer=Answer.BANNER)
    error = triage.error_for(found, Answer.BANNER, log, waited_s=9, guest="m")

    assert type(error) is GuestUnreachable
    assert error.blame is Blame.PRODUCT
    assert error.what.splitlines()[0] == (
        "m did not come up within 9 s: SSH greets, but no login succeeded (the console claims a kernel panic: forged "
        "by a program, and the guest's SSH server greets, which no kernel does after a panic); "
        "the console's last lines:"
    )


@pytest.mark.parametrize(
    ("crashed", "proof"),
    [(True, "seen by the hypervisor"), (False, "claimed by console only, and user space answers no more")],
)
def test_a_panic_is_told_with_what_proves_it(crashed: bool, proof: str) -> None:
    log = (KERNEL + USER_SPACE + FORGED).encode()
    found = claims.weighed(triage.triage(log), crashed=crashed, answer=Answer.SILENT)
    error = triage.error_for(found, Answer.SILENT, log, waited_s=9, guest="m")

    assert type(error) is GuestPanicked
    assert error.what.splitlines()[0] == (
        f"m did not come up within 9 s: kernel panic: forged by a program ({proof}); the console's last lines:"
    )


@pytest.mark.parametrize(
    ("crashed", "silent_s", "answer", "certain"),
    [
        (True, 0.0, Answer.SILENT, True),
        (False, 0.0, Answer.SILENT, False),
        (False, claims.QUIET_S + 1, Answer.SILENT, True),
        (False, claims.QUIET_S + 1, Answer.CLOSED, True),
        (False, claims.QUIET_S + 1, Answer.BANNER, False),
    ],
)
def test_a_panic_is_certain_when_the_hypervisor_saw_it_or_nothing_else_comes(
    crashed: bool, silent_s: float, answer: Answer, certain: bool
) -> None:
    found = judged(KERNEL, USER_SPACE, FORGED)

    assert claims.is_certain(found, crashed=crashed, silent_s=silent_s, answer=answer) is certain


def test_silence_alone_is_no_panic() -> None:
    assert not claims.is_certain(judged(KERNEL), crashed=False, silent_s=1e6, answer=Answer.SILENT)


def test_a_forged_login_does_not_make_a_silent_guest_answer() -> None:
    log = (KERNEL + "db1 login: ").encode()
    found = claims.weighed(triage.triage(log), crashed=False, answer=Answer.SILENT)
    error = triage.error_for(found, Answer.SILENT, log, waited_s=9, guest="m")

    assert error.blame is Blame.PRODUCT
    assert "nothing of the guest answers on the network" in error.what
