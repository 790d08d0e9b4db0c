"""A short conversation with one QEMU over QMP; opened for an operation and closed after it.

QEMU serves one client of a monitor at a time, so nobody keeps the connection: another process (`lab down`,
`lab reap`) waits for its turn instead of for ever.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from lab import waiting
from lab.errors import HypervisorRefused, MissingExtra
from lab.hypervisors import _machine_directory as files

T = TypeVar("T")
_TURN_S = 60.0  # another process may be taking a snapshot
_ANSWER_S = 60.0


class MonitorLost(HypervisorRefused):
    """QEMU did not answer or hung up: it ended, or it is stuck."""


class Monitor:
    """An open QMP connection."""

    def __init__(self, client: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._client, self._loop = client, loop

    def command(self, name: str, arguments: dict[str, object] | None = None) -> Any:
        """Execute one command. Raises `HypervisorRefused` with QEMU's own words, `MonitorLost`."""
        from qemu.qmp import QMPError
        from qemu.qmp.qmp_client import ExecuteError

        try:
            return self._wait(self._client.execute(name, arguments or {}))
        except ExecuteError as reason:
            raise HypervisorRefused(f"QEMU refused {name}: {reason}") from reason
        except (QMPError, OSError, EOFError) as reason:
            raise MonitorLost(f"QEMU did not answer {name}: {reason}") from reason

    def human(self, line: str) -> str:
        """A command that only the human monitor has; its answer is text."""
        return str(self.command("human-monitor-command", {"command-line": line}))

    def give_file(self, name: str, descriptor: int) -> None:
        """Hand over an open file that later commands call `fd:NAME`."""
        self._client.send_fd_scm(descriptor)
        self.command("getfd", {"fdname": name})

    def status(self) -> str:
        """QEMU's run state: "running", "paused", "shutdown" ..."""
        return str(self.command("query-status")["status"])

    def until(self, probe: Callable[[], T | None], *, what: str, timeout_s: float) -> T:
        """Wait with short pauses; see `lab.waiting.until`."""
        return waiting.until(probe, what=what, timeout_s=timeout_s, longest_pause_s=0.1)

    def job(self, command: str, arguments: dict[str, object], *, timeout_s: float) -> None:
        """Run a background job to its end. Raises `HypervisorRefused` with the job's error."""
        name = f"lab-{os.urandom(6).hex()}"
        self.command(command, {"job-id": name, **arguments})

        def concluded() -> dict[str, Any] | None:
            jobs = [job for job in self.command("query-jobs") if job["id"] == name]
            return jobs[0] if jobs and jobs[0]["status"] == "concluded" else None

        job = self.until(concluded, what=f"QEMU to finish {command}", timeout_s=timeout_s)
        self.command("job-dismiss", {"id": name})
        if job.get("error"):
            raise HypervisorRefused(f"QEMU could not finish {command}: {job['error']}")

    def news(self) -> list[dict[str, Any]]:
        """The events of this connection that came since the last question."""
        self._wait(asyncio.sleep(0.02))  # lets what came be read
        return [dict(event) for event in self._client.events.clear()]

    def _wait(self, answer: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(asyncio.wait_for(answer, _ANSWER_S))


@contextmanager
def talk(directory: Path) -> Iterator[Monitor]:
    """Connect to the monitor in a machine's directory. Raises `MonitorLost`, `MissingExtra`."""
    try:
        from qemu.qmp import QMPClient, QMPError
    except ImportError as reason:
        raise MissingExtra("the qemu driver", "qemu") from reason

    # What the package logs (a guest that died while we spoke) is in the error that we raise.
    logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)
    loop = asyncio.new_event_loop()
    client = QMPClient("lab")
    try:
        try:
            connection = files.connect(directory, "qmp.sock")
            loop.run_until_complete(asyncio.wait_for(client.connect(connection), _TURN_S))
        except (QMPError, OSError, EOFError, AssertionError) as reason:
            # AssertionError: qemu.qmp (protocol.py, connect) asserts that QEMU has not hung up since its greeting.
            raise MonitorLost(f"QEMU's monitor in {directory} does not answer: {reason}") from reason
        yield Monitor(client, loop)
    finally:
        try:
            loop.run_until_complete(client.disconnect())
        except (QMPError, OSError, EOFError) as reason:
            # QEMU may end while we speak, by our own request; the caller judges that by its process.
            logging.getLogger(__name__).debug("disconnect: %s", reason)
        loop.close()
