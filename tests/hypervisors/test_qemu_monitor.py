"""QEMU's monitor, where QEMU hangs up: the error is the lab's, and nothing of the conversation is left."""

from __future__ import annotations

import gc
import json
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.hypervisors._qemu_monitor import MonitorLost, talk

GREETING = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}, "capabilities": []}}


@contextmanager
def _monitor(folder: Path, serve: Callable[[socket.socket], None]) -> Iterator[None]:
    """A monitor in that folder, for one client."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "qmp.sock"))
        listener.listen(1)
        listener.settimeout(60)

        def run() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(60)
                serve(connection)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            thread.join(60)


def _greeted(connection: socket.socket) -> None:
    connection.sendall(json.dumps(GREETING).encode() + b"\r\n")
    connection.recv(4096)  # qmp_capabilities


def _silent(connection: socket.socket) -> None:
    """Hangs up without a word."""


def _before_the_answer(connection: socket.socket) -> None:
    _greeted(connection)


def _after_the_answer(connection: socket.socket) -> None:
    _greeted(connection)
    connection.sendall(b'{"return": {}}\r\n')


def _in_the_middle(connection: socket.socket) -> None:
    connection.sendall(b'{"QMP": {"ver')


@pytest.mark.parametrize("serve", [_silent, _in_the_middle, _before_the_answer, _after_the_answer])
def test_a_qemu_that_hangs_up_is_a_lost_monitor(tmp_path: Path, serve: Callable[[socket.socket], None]) -> None:
    with _monitor(tmp_path, serve), pytest.raises(MonitorLost), talk(tmp_path) as monitor:
        monitor.status()


def test_a_qemu_that_hangs_up_leaves_no_task_behind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        with _monitor(tmp_path, _after_the_answer), pytest.raises(MonitorLost), talk(tmp_path) as monitor:
            monitor.status()
        gc.collect()

    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []


def test_no_monitor_is_a_lost_monitor(tmp_path: Path) -> None:
    with pytest.raises(MonitorLost, match="does not answer"), talk(tmp_path):
        pass
