"""What is kept with a warm copy, and the ways in which a copy gets its identity."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab.contracts import SshLogin
from lab.errors import ConfigurationError, GuestUnreachable
from lab.guests.families import linux
from lab.guests.families.linux import Server
from lab.guests.identity import Identity
from lab.provisioning import first_login_warm as warm
from lab.provisioning import keys
from lab.provisioning.first_login_warm import Kept

OLD, NEW = Identity.make("old"), Identity.make("new")
LOGIN = SshLogin("root", Path("/key"), OLD.host_key_public)


@dataclass
class Lined:
    """A machine with a line, whose other end is in `ends`."""

    name: str = "m"
    ends: list[socket.socket] = field(default_factory=list)

    def line(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        self.ends.append(theirs)
        return ours


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """How the copy was logged in to, in order."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    went: list[str] = []
    guest: Any = SimpleNamespace()

    def anew(machine: object, make: object, login: SshLogin) -> Any:
        went.append(f"anew {login.host_key}")
        return guest

    def by_ssh(machine: object, make: object, login: SshLogin, identity: Identity) -> Any:
        went.append(f"ssh {login.host_key} {identity.hostname}")
        return guest

    monkeypatch.setattr(warm, "log_in_anew", anew)
    monkeypatch.setattr(warm, "log_in_to_clone", by_ssh)
    return went


@pytest.mark.parametrize("waits", [None, *Server])
def test_what_is_kept_is_read_as_it_was_written(waits: Server | None) -> None:
    kept = Kept(OLD, "ssh-ed25519 AAAA lab", waits)

    assert Kept.from_bytes(kept.to_bytes()) == kept


@pytest.mark.parametrize(
    "data",
    [
        OLD.to_bytes(),  # as an earlier lab kept it
        b"",
        b"[]",
        b"{" * 100_000,
        Kept(OLD, "k", Server.DROPBEAR).to_bytes().replace(linux.WAITER_DIGEST.encode(), b"0" * 64),
        Kept(OLD, "k", None).to_bytes().replace(b'"schema": 2', b'"schema": 1'),
        json.dumps({"schema": 3}).encode(),
        Kept(OLD, "k", None).to_bytes().replace(b'"authorized_key": "k"', b'"authorized_key": 1'),
        Kept(OLD, "k", None).to_bytes().replace(b'"waits": null', b'"waits": "x"'),
        Kept(OLD, "k", None).to_bytes().replace(b'"waits": null', b'"waits": []'),
    ],
)
def test_what_another_lab_kept_is_refused_and_never_quoted(data: bytes) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Kept.from_bytes(data)

    assert "PRIVATE" not in str(refused.value)


def test_a_copy_that_lets_in_another_key_is_refused(ways: list[str]) -> None:
    Kept(OLD, keys.client_key().public, None).require_key()

    with pytest.raises(ConfigurationError, match="a key that the lab does not use any more"):
        Kept(OLD, "ssh-ed25519 AAAA somebody", None).require_key()


def test_a_copy_in_which_somebody_waits_is_told_and_logged_in_to_once(
    ways: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine: Any = Lined()
    told: list[object] = []
    monkeypatch.setattr(linux, "tell_identity", lambda line, server, identity: told.append((server, identity)))

    warm.log_in_to_copy(machine, _never, Kept(OLD, "", Server.DROPBEAR), LOGIN, NEW)

    assert told == [(Server.DROPBEAR, NEW)]
    assert ways == [f"anew {NEW.host_key_public}"]
    assert machine.ends[0].recv(1) == b""  # the line was closed


def test_a_copy_in_which_nobody_waits_is_renewed_over_ssh(ways: list[str]) -> None:
    machine: Any = Lined()

    warm.log_in_to_copy(machine, _never, Kept(OLD, "", None), LOGIN, NEW)

    assert ways == [f"ssh {OLD.host_key_public} new"]
    assert machine.ends == []


def test_a_machine_without_a_line_is_renewed_over_ssh(ways: list[str]) -> None:
    machine: Any = SimpleNamespace(name="m")

    warm.log_in_to_copy(machine, _never, Kept(OLD, "", Server.DROPBEAR), LOGIN, NEW)

    assert ways == [f"ssh {OLD.host_key_public} new"]


def test_a_line_that_fails_leaves_the_way_over_ssh(ways: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    machine: Any = Lined()

    def silent(*_: object) -> bool:
        raise GuestUnreachable("nobody answers")

    monkeypatch.setattr(linux, "tell_identity", silent)

    warm.log_in_to_copy(machine, _never, Kept(OLD, "", Server.OPENSSH), LOGIN, NEW)

    assert ways == [f"ssh {OLD.host_key_public} new"]


def test_somebody_waits_while_a_machine_with_a_line_is_saved(ways: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    machine: Any = Lined()
    guest: Any = SimpleNamespace(channel=None)
    monkeypatch.setattr(linux, "wait_for_identity", lambda channel, line: Server.DROPBEAR)

    with warm.kept_while(machine, guest, OLD) as kept:
        assert kept == Kept(OLD, keys.client_key().public, Server.DROPBEAR)
        machine.ends[0].setblocking(False)
        with pytest.raises(BlockingIOError):
            machine.ends[0].recv(1)  # the line is open

    machine.ends[0].setblocking(True)
    assert machine.ends[0].recv(1) == b""


def test_a_guest_in_which_nobody_can_wait_is_saved_all_the_same(
    ways: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine: Any = Lined()
    guest: Any = SimpleNamespace(channel=None)

    def lost(*_: object) -> None:
        raise GuestUnreachable("the line ended")

    monkeypatch.setattr(linux, "wait_for_identity", lost)

    with warm.kept_while(machine, guest, OLD) as kept:
        assert kept.waits is None


def _never(login: SshLogin, timeout_s: float) -> Any:
    raise AssertionError("the fakes log in")
