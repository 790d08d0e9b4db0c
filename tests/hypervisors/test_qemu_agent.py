"""The agent's protocol, against agents that lie, chatter and fall silent: a guest that means us harm runs them."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any

import pytest

from lab.contracts import CopiesFiles, FreezesFilesystems, MachineSpec, ReportsAddresses, RunsInGuest
from lab.errors import CommandTimedOut, GuestCommandFailed, GuestUnreachable, HypervisorRefused, NotSupported
from lab.hypervisors import _qemu_agent, _qemu_guest
from lab.hypervisors._qemu_host import QemuHost
from lab.hypervisors._qemu_machine import QemuMachine

Reply = Callable[[str, dict[str, Any]], bytes]
Pretend = Callable[[Reply], QemuMachine]


def returned(value: object) -> bytes:
    return json.dumps({"return": value}).encode() + b"\n"


def refused(words: str) -> bytes:
    return json.dumps({"error": {"class": "GenericError", "desc": words}}).encode() + b"\n"


def polite(reply: Reply) -> Reply:
    """Answers the beginning of a conversation as the protocol says, then as `reply` does."""

    def answer(name: str, arguments: dict[str, Any]) -> bytes:
        if name == "guest-sync-delimited":
            return b"\xff" + returned(arguments["id"])
        return reply(name, arguments)

    return answer


@pytest.fixture
def pretend(qemu_host: QemuHost, sector: Callable[..., MachineSpec]) -> Iterator[Pretend]:
    """A running machine behind whose agent socket somebody else sits."""
    machine = qemu_host.create(sector("idle"))
    assert isinstance(machine, QemuMachine)
    machine.start()
    listener = socket.socket(socket.AF_UNIX)
    ended = threading.Event()

    def serve(reply: Reply) -> None:
        while not ended.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as lines:
                try:
                    for line in lines:
                        message = json.loads(line.lstrip(b"\xff"))
                        connection.sendall(reply(message["execute"], message["arguments"]))
                except OSError:
                    continue

    def start(reply: Reply) -> QemuMachine:
        path = machine.directory.path / _qemu_agent.SOCKET
        path.unlink()
        folder = os.open(machine.directory.path, os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{folder}/{_qemu_agent.SOCKET}")
        os.close(folder)
        listener.listen()
        threading.Thread(target=serve, args=(reply,), daemon=True).start()
        return machine

    yield start
    ended.set()
    listener.close()


def test_a_machine_has_the_capabilities_of_its_agent(pretend: Pretend) -> None:
    machine = pretend(polite(lambda name, arguments: returned({})))

    assert isinstance(machine, RunsInGuest)
    assert isinstance(machine, CopiesFiles)
    assert isinstance(machine, ReportsAddresses)
    assert isinstance(machine, FreezesFilesystems)
    assert machine.agent_answers()


def test_without_an_agent_there_is_no_answer(
    qemu_host: QemuHost, sector: Callable[..., MachineSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_qemu_guest, "ANSWER_S", 0.4)
    machine = qemu_host.create(sector("idle"))
    assert isinstance(machine, QemuMachine)
    assert not machine.agent_answers()
    machine.start()

    assert not machine.agent_answers()
    with pytest.raises(GuestUnreachable, match="no agent answers in one"):
        machine.agent_addresses()


def test_what_is_left_of_an_earlier_conversation_is_skipped(pretend: Pretend) -> None:
    def stale(name: str, arguments: dict[str, Any]) -> bytes:
        if name == "guest-sync-delimited":
            left = returned({"exited": True}) + b'half an answ\xff{"return": 1}\n'
            return left + b"\xff" + returned(arguments["id"])
        return returned([])

    assert pretend(stale).agent_addresses() == {}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"\xff" + b"x" * (1 << 21), "an answer has more than 1048576 bytes"),
        (b"\xff" + b"[" * 500_000 + b"\n", "is no answer"),
        (b"\xff\x1b[2J\x07evil\n", r"\?\[2J\?evil is no answer"),
        (b'\xff{"return": 5}\n' * 1001, "it never answered what it was asked"),
        (b"y" * ((64 << 20) + 70_000), "it talks without end"),
    ],
)
def test_an_agent_that_talks_nonsense_is_named_and_left(pretend: Pretend, answer: bytes, said: str) -> None:
    machine = pretend(lambda name, arguments: answer)

    with pytest.raises(GuestUnreachable, match=said) as caught:
        machine.agent_addresses()
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (returned("many"), "a list of network cards"),
        (returned([{"hardware-address": "52:54:00:00:00:01", "ip-addresses": 5}]), "a list of addresses"),
        (b"{}\n", "its answer is neither a result nor an error"),
        (b'{"error": "x"}\n', "its answer is neither a result nor an error"),
        (b"7\n", "its answer is neither a result nor an error"),
        (b"9" * 5000 + b"\n", "is no answer"),
    ],
)
def test_an_answer_of_another_shape_is_refused(pretend: Pretend, answer: bytes, said: str) -> None:
    machine = pretend(polite(lambda name, arguments: answer))

    with pytest.raises(GuestUnreachable, match=said):
        machine.agent_addresses()


def test_only_addresses_are_believed_to_be_addresses(pretend: Pretend) -> None:
    entries = [{"ip-address": "10.0.2.15"}, {"ip-address": "<script>"}, {}, 5, {"ip-address": "fe80::1"}]
    cards = [
        {"name": "lo", "hardware-address": "00:00:00:00:00:00", "ip-addresses": entries},
        {"name": "../../x", "hardware-address": "52:54:00:AA:00:01", "ip-addresses": entries},
        {"name": "x", "hardware-address": "<b>"},
        {"name": "y", "hardware-address": "52:54:00:aa:00:02"},
        7,
    ]
    machine = pretend(polite(lambda name, arguments: returned(cards)))

    assert machine.agent_addresses() == {"52:54:00:aa:00:01": ["10.0.2.15", "fe80::1"], "52:54:00:aa:00:02": []}


@pytest.mark.parametrize(
    ("told", "status", "out", "truncated"),
    [
        ({"exited": True, "exitcode": 3, "out-data": base64.b64encode(b"hi").decode()}, 3, b"hi", False),
        ({"exited": True, "signal": 9}, 137, b"", False),
        ({"exited": True, "exitcode": 0, "out-data": "eA==", "out-truncated": True}, 0, b"x", True),
    ],
)
def test_the_end_of_a_program_is_read(
    pretend: Pretend, told: dict[str, object], status: int, out: bytes, truncated: bool
) -> None:
    machine = pretend(
        polite(lambda name, arguments: returned({"pid": 7} if name == "guest-exec" else told)),
    )

    result = machine.agent_run(["x"])

    assert (result.status, result.stdout, result.truncated) == (status, out, truncated)


@pytest.mark.parametrize(
    "told",
    [
        {"exited": True},
        {"exited": True, "exitcode": "0"},
        {"exited": True, "exitcode": True},
        {"exited": True, "exitcode": 0, "out-data": "no base64!"},
        {"exited": True, "exitcode": 0, "out-data": 5},
        "gone",
    ],
)
def test_an_end_that_makes_no_sense_is_refused(pretend: Pretend, told: object) -> None:
    machine = pretend(polite(lambda name, arguments: returned({"pid": 7} if name == "guest-exec" else told)))

    with pytest.raises(GuestUnreachable, match="does not keep to its protocol"):
        machine.agent_run(["x"])


def test_a_program_that_never_ends_is_killed_in_the_guest(pretend: Pretend) -> None:
    orders: list[dict[str, Any]] = []

    def reply(name: str, arguments: dict[str, Any]) -> bytes:
        if name == "guest-exec":
            orders.append(arguments)
            return returned({"pid": 77})
        return returned({"exited": False})

    with pytest.raises(CommandTimedOut, match="'x' did not end within 0 s"):
        pretend(polite(reply)).agent_run(["x"], timeout_s=0.2)

    assert orders[-1] == {"path": "kill", "arg": ["-KILL", "77"]}


def test_a_file_without_end_is_left(pretend: Pretend) -> None:
    def reply(name: str, arguments: dict[str, Any]) -> bytes:
        piece = {"count": 0, "buf-b64": "", "eof": False}
        return returned({"guest-file-open": 5, "guest-file-read": piece}.get(name, {}))

    with pytest.raises(GuestCommandFailed, match=re.escape("'/x' has no end")):
        pretend(polite(reply)).agent_read(PurePosixPath("/x"))


def test_a_file_that_grows_for_ever_is_left_at_the_limit(pretend: Pretend) -> None:
    piece = {"count": 9, "buf-b64": base64.b64encode(bytes(100_000)).decode(), "eof": False}
    replies = {"guest-file-open": 5, "guest-file-read": piece}

    with pytest.raises(GuestCommandFailed, match=re.escape("'/x' is larger than 1000000 bytes")):
        pretend(polite(lambda name, _: returned(replies.get(name, {})))).agent_read(
            PurePosixPath("/x"), limit_bytes=1_000_000
        )


def test_a_file_written_by_half_is_named(pretend: Pretend) -> None:
    replies = {"guest-file-open": 5, "guest-file-write": {"count": 1, "eof": False}}

    with pytest.raises(GuestCommandFailed, match=re.escape("'/x' was not written whole")):
        pretend(polite(lambda name, _: returned(replies.get(name, {})))).agent_write(PurePosixPath("/x"), b"abc")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("Command guest-fsfreeze-freeze has been disabled: the agent is in frozen state", HypervisorRefused),
        ("failed to freeze /mnt: Input/output error", HypervisorRefused),
        ("this feature or command is not currently supported", NotSupported),
        ("Command guest-fsfreeze-freeze has been disabled", NotSupported),
    ],
)
def test_a_freeze_that_is_refused_says_why(pretend: Pretend, words: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=re.escape(words)):
        pretend(polite(lambda name, arguments: refused(words))).freeze()


def test_one_speaks_with_the_agent_at_a_time(pretend: Pretend, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = pretend(polite(lambda name, arguments: returned([])))

    with _qemu_agent.talk(machine.directory, timeout_s=60), monkeypatch.context() as impatient:
        impatient.setattr(_qemu_guest, "ANSWER_S", 0.3)
        with pytest.raises(GuestUnreachable, match="somebody else speaks with the agent of one"):
            machine.agent_addresses()
    assert machine.agent_addresses() == {}
