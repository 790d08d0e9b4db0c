"""SSH against servers that lie, flood, stop answering and go away while commands run."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path, PurePosixPath
from typing import Any

import paramiko
import pytest

from lab import waiting
from lab.errors import (
    CommandTimedOut,
    GuestCommandFailed,
    GuestUnreachable,
    HostKeyChanged,
)
from lab.guests.channels import ssh
from lab.ssh import _connection, _exec, _pump
from lab.ssh import channel as ssh_channel


def _silent(channel: paramiko.Channel, command: bytes) -> None:
    threading.Event().wait(60)


# -- commands -----------------------------------------------------------------------------------------------


def test_a_server_that_never_starts_the_command_is_given_up(hostile: Any, client_key: Path) -> None:
    server = hostile(_silent, answers_exec=False)
    channel = ssh.connect(server.endpoint, server.login(client_key), timeout_s=60)

    with pytest.raises(GuestUnreachable, match="the guest's SSH server starts no command"):
        channel.run(("true",), timeout_s=1)


def test_a_server_that_never_answers_a_command_runs_into_the_limit(hostile: Any, client_key: Path) -> None:
    server = hostile(_silent)
    channel = ssh.connect(server.endpoint, server.login(client_key), timeout_s=60)

    with pytest.raises(CommandTimedOut) as caught:
        channel.run(("uname", "-a"), timeout_s=1)

    assert caught.value.what == "'uname -a' did not end within 1 s; its output so far: ''"


def test_a_server_that_closes_in_the_middle_of_an_answer_is_unreachable(hostile: Any, client_key: Path) -> None:
    def hangs_up(channel: paramiko.Channel, command: bytes) -> None:
        channel.recv(65536)
        channel.sendall(b"half an ans")
        channel.get_transport().close()

    server = hostile(hangs_up)
    channel = ssh.connect(server.endpoint, server.login(client_key), timeout_s=60)

    with pytest.raises(GuestUnreachable, match="the connection to the guest was lost during 'uname'"):
        channel.run(("uname",), timeout_s=60)


def test_a_shell_that_lies_about_markers_gives_no_result(hostile: Any, client_key: Path) -> None:
    def lies(channel: paramiko.Channel, command: bytes) -> None:
        text = channel.recv(65536).decode()
        hello = text.split("_lab_end ")[1].split()[0]
        channel.sendall(f"{hello} not a number at all\n".encode())
        _silent(channel, command)

    server = hostile(lies)
    channel = ssh.connect(server.endpoint, server.login(client_key), timeout_s=60)

    with pytest.raises(GuestCommandFailed) as caught:
        channel.run(("uname",), timeout_s=60)

    assert caught.value.what == "'uname' ended the shell that ran it, so it left no status; its output: ''"


def test_output_that_comes_long_after_the_status_is_kept(
    lying: Any, client_key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_exec, "_AFTER_EXIT_S", 4.0)  # much longer than between two pieces, shorter than all of them

    def tells_slowly(liar: Any) -> None:
        channel = liar._channel
        channel.send_exit_status(0)
        for number in range(6):
            threading.Event().wait(0.9)
            channel.sendall(b"%d\n" % number)
        channel.close()

    server = lying(tells_slowly)
    channel = ssh.connect(server.endpoint, server.login(client_key), timeout_s=60)

    result = channel.run(("slow",), stdin=b"so that it gets a channel of its own", timeout_s=60)

    assert (result.status, result.stdout) == (0, b"0\n1\n2\n3\n4\n5\n")


def test_a_server_that_floods_an_idle_channel_is_cut_off(hostile: Any, client_key: Path) -> None:
    def floods(channel: paramiko.Channel, command: bytes) -> None:
        # An honest server waits for room in the window; this one does not.
        channel.out_window_size = 1 << 40
        while True:
            channel.sendall(b"x" * 32768)

    server = hostile(floods)
    channel = ssh.connect(server.endpoint, server.login(client_key), timeout_s=60)
    stream = channel.stream(("true",), timeout_s=60)
    next(stream)

    waiting.until(lambda: not channel.is_connected(), what="the flooding server to be cut off", timeout_s=120)

    with pytest.raises(GuestUnreachable):
        channel.run(("true",))


def test_a_flood_on_the_other_stream_does_not_hide_the_time(hostile: Any, client_key: Path) -> None:
    def floods(channel: paramiko.Channel, command: bytes) -> None:
        while True:
            channel.sendall_stderr(b"x" * 32768)

    server = hostile(floods)
    channel = ssh.connect(server.endpoint, server.login(client_key), timeout_s=60)

    with pytest.raises(CommandTimedOut) as caught:
        channel.run(("true",), timeout_s=1)

    assert len(str(caught.value)) < 2000


def test_a_guest_that_stands_still_is_noticed_before_the_limit(
    sshd: Any, client_key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids: list[int] = []
    pulses: list[_pump.Pulse] = []

    def noted(transport: Any, meter: Any) -> _pump.Pulse:
        pulses.append(_pump.Pulse(transport, meter))
        return pulses[-1]

    monkeypatch.setattr(_connection, "Pulse", noted)
    channel = ssh.connect(sshd.endpoint, sshd.login, timeout_s=60)
    # The server's half of this connection: the parent of the parent of a command.
    shell = channel.run(("sh", "-c", "echo $PPID")).out
    pids.append(int(channel.run(("sed", "-n", "s/^PPid:[[:space:]]*//p", f"/proc/{shell}/status")).out))
    os.kill(pids[0], signal.SIGSTOP)
    # From now on only: a guest that has to answer quickly before may be lost for want of time.
    pulses[0]._patience_s, pulses[0]._first_question_s = 3.0, 1.0
    try:
        with pytest.raises(GuestUnreachable, match="the guest was lost during 'sleep 600': the guest did not answer"):
            channel.run(("sleep", "600"), timeout_s=120)
    finally:
        os.kill(pids[0], signal.SIGCONT)


def test_a_guest_that_is_gone_when_a_command_runs_out_of_time_is_lost(
    sshd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_channel, "_SIGN_OF_LIFE_S", 1.0)
    channel = ssh.connect(sshd.endpoint, sshd.login, timeout_s=60)
    shell = channel.run(("sh", "-c", "echo $PPID")).out
    pid = int(channel.run(("sed", "-n", "s/^PPid:[[:space:]]*//p", f"/proc/{shell}/status")).out)
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(GuestUnreachable) as caught:
            channel.run(("sleep", "600"), timeout_s=2)
    finally:
        os.kill(pid, signal.SIGCONT)

    assert caught.value.what == "the guest was lost during 'sleep 600': it does not answer any more"
    assert not channel.is_connected()


def test_a_long_silent_command_is_no_dead_guest(sshd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # A server on a busy machine may need seconds for its sign of life.
    monkeypatch.setattr(_connection, "Pulse", lambda t, m: _pump.Pulse(t, m, patience_s=6.0))
    channel = ssh.connect(sshd.endpoint, sshd.login, timeout_s=60)

    assert channel.run(("sleep", "8"), timeout_s=60).status == 0


def test_a_connection_that_nobody_used_for_long_is_no_dead_guest(sshd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pulses: list[_pump.Pulse] = []

    def noted(transport: Any, meter: Any) -> _pump.Pulse:
        pulses.append(_pump.Pulse(transport, meter, patience_s=9.0))
        return pulses[-1]

    monkeypatch.setattr(_connection, "Pulse", noted)
    channel = ssh.connect(sshd.endpoint, sshd.login, timeout_s=60)
    channel.run(("true",))
    pulses[0]._heard -= 1000.0

    assert channel.run(("sleep", "3"), timeout_s=60).status == 0  # the first look comes before it ends


def test_a_command_after_the_connection_broke_is_unreachable(sshd: Any) -> None:
    channel = ssh.connect(sshd.endpoint, sshd.login, timeout_s=60)
    channel.close()

    with pytest.raises(GuestUnreachable):
        channel.run(("true",))


def test_a_broken_connection_can_be_opened_anew(sshd: Any) -> None:
    channel = ssh.connect(sshd.endpoint, sshd.login, timeout_s=60)
    channel.run(("true",))
    channel.close()

    channel.reconnect(60)

    assert channel.run(("echo", "back")).out == "back"


def test_a_guest_that_does_not_come_back_is_told(hostile: Any, client_key: Path) -> None:
    server = hostile(_silent)
    channel = ssh.connect(server.endpoint, server.login(client_key), timeout_s=60)
    port = server.endpoint.port
    server.close()

    with pytest.raises(GuestUnreachable) as caught:
        channel.reconnect(1)

    assert caught.value.what == (
        f"SSH did not come back within 1 s; at last: no connection to 127.0.0.1:{port}: [Errno 111] Connection refused"
    )


def test_a_renewed_host_key_is_pinned_by_a_new_login(sshd: Any, dropbear: Any) -> None:
    channel = ssh.connect(sshd.endpoint, sshd.login, timeout_s=60)

    with pytest.raises(HostKeyChanged):
        channel.with_login(dropbear.login, timeout_s=60)


def test_reconnecting_may_go_to_another_place(sshd: Any, dropbear: Any) -> None:
    channel = ssh.connect(sshd.endpoint, sshd.login, timeout_s=60)
    channel.close()
    moved = ssh.SshChannel(channel._connection, sshd.endpoint, dropbear.login)

    moved.reconnect(60, endpoint=dropbear.endpoint)

    assert moved.endpoint == dropbear.endpoint
    assert moved.run(("true",)).status == 0
    moved.close()


def test_output_of_an_earlier_background_process_is_not_in_a_later_answer(sshd: Any, tmp_path: Path) -> None:
    channel = ssh.connect(sshd.endpoint, sshd.login, timeout_s=60)
    path = tmp_path / "go"
    channel.run(("sh", "-c", f"(until [ -e {path} ]; do sleep 0.1; done; echo late) &"))
    path.touch()
    assert channel._shell is not None
    came = channel._shell.pump._channel.recv_ready
    waiting.until(came, what="what the background process says", timeout_s=60)

    assert channel.run(("echo", "now")).stdout == b"now\n"


def test_two_threads_share_a_channel(sshd: Any) -> None:
    channel = ssh.connect(sshd.endpoint, sshd.login, timeout_s=60)
    got: list[bytes] = []

    def ask(number: int) -> None:
        got.append(channel.run(("sh", "-c", f"sleep 0.2; echo {number}"), timeout_s=60).stdout)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(got) == [b"0\n", b"1\n", b"2\n", b"3\n"]


@pytest.mark.parametrize("argv", [(), ("a\0b",)])
def test_words_that_no_shell_can_carry_are_refused(sshd: Any, argv: tuple[str, ...]) -> None:
    channel = ssh.connect(sshd.endpoint, sshd.login, timeout_s=60)

    with pytest.raises(ValueError):
        channel.run(argv)

    assert channel.run(("echo", "after")).out == "after"


def test_a_cut_input_leaves_no_half_file(dropbear: Any) -> None:
    channel = ssh.connect(dropbear.endpoint, dropbear.login, timeout_s=60)
    path = f"/tmp/lab-cut-{time.time_ns()}"
    # What the guest runs for `write`, with less input than announced: the connection broke on the way.
    result = channel.run(("/bin/sh", "-c", ssh_channel._WRITE, "sh", path, f"{path}.new", "644", "10"), stdin=b"short")

    assert result.status == 1
    assert result.err == "the content did not arrive whole"
    assert channel.run(("sh", "-c", f"ls -d {path}*")).out == ""


def test_a_written_file_has_no_moment_with_a_wider_mode(sshd: Any, tmp_path: Path) -> None:
    channel = ssh.connect(sshd.endpoint, sshd.login, timeout_s=60)

    channel.write(PurePosixPath(tmp_path / "secret"), b"x", mode=0o600)

    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
