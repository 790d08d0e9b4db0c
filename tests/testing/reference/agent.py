"""The reference machine with a serial line, an agent in its guest, and sockets into it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import PurePath

from lab.contracts import CommandResult, Endpoint, MachineState
from lab.errors import CommandTimedOut, GuestCommandFailed, GuestUnreachable, HypervisorRefused
from tests.testing.reference.machine import FolderMachine

OUTPUT_LIMIT = 1 << 20


class AgentMachine(FolderMachine):
    """With an agent in the guest, and a serial line."""

    # -- the serial line -----------------------------------------------------------------------------------

    def start(self) -> None:
        super().start()
        typed = self.folder / "typed"
        if not typed.exists():
            os.mkfifo(typed)

    def type_on_console(self, data: bytes) -> None:
        if self.lie == "types-anywhere":
            return
        self.must_run()
        if self.lie == "types-nothing":
            return
        with suppress(OSError):  # nobody reads, as at a line without a terminal
            line = os.open(self.folder / "typed", os.O_WRONLY | os.O_NONBLOCK)
            os.write(line, data)
            os.close(line)

    # -- programs ------------------------------------------------------------------------------------------

    def agent_answers(self) -> bool:
        return self.state() is MachineState.RUNNING or self.lie == "agent-of-the-dead"

    def agent_run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = 60.0) -> CommandResult:
        if not self.agent_answers():
            raise GuestUnreachable(f"no agent answers in {self.name}")
        if self.lie == "agent-runs-nothing":
            return CommandResult(tuple(argv), 0, b"", b"", 0.0)
        try:
            status, out, err = self.processes.run(argv, stdin, timeout_s)
        except subprocess.TimeoutExpired:
            if self.lie == "agent-waits-not":
                return CommandResult(tuple(argv), 0, b"", b"", timeout_s)
            raise CommandTimedOut(f"{' '.join(argv)} did not end within {timeout_s} s") from None
        limit = len(out) if self.lie == "agent-endless" else OUTPUT_LIMIT
        return CommandResult(tuple(argv), status, out[:limit], err[:limit], 0.0, truncated=len(out) > limit)

    # -- files ---------------------------------------------------------------------------------------------

    def agent_read(self, path: PurePath, *, limit_bytes: int = 16 << 20) -> bytes:
        if self.lie == "agent-reads-all":
            limit_bytes = 1 << 40
        try:
            data = (self.root / str(path).lstrip("/")).read_bytes()
        except OSError as reason:
            raise GuestCommandFailed(f"{path}: {reason.strerror}") from reason
        if len(data) > limit_bytes:
            raise GuestCommandFailed(f"{path} is larger than {limit_bytes} bytes")
        return data[:1000] if self.lie == "agent-cuts-files" else data

    def agent_write(self, path: PurePath, data: bytes) -> None:
        try:
            (self.root / str(path).lstrip("/")).write_bytes(data)
        except OSError as reason:
            raise GuestCommandFailed(f"{path}: {reason.strerror}") from reason

    # -- addresses, file systems, vsock --------------------------------------------------------------------

    def agent_addresses(self) -> Mapping[str, Sequence[str]]:
        known = self.folder / "addresses-once"
        found = {}
        for card in (self.root / "sys/class/net").iterdir():
            lines = (card / "addresses").read_text().split()
            found[(card / "address").read_text().strip()] = [line.partition("/")[0] for line in lines]
        if self.lie == "stale-agent-address":
            if not known.exists():
                known.write_text(repr(found))
            stale: Mapping[str, Sequence[str]] = eval(known.read_text())  # noqa: S307 - our own repr
            return stale
        return found

    def freeze(self) -> int:
        self.must_run()
        if (self.folder / "frozen").exists() and self.lie != "freezes-not":
            raise HypervisorRefused(f"{self.name} is frozen already")
        if self.lie != "freezes-not":
            (self.folder / "frozen").touch()
        return 1

    def thaw(self) -> int:
        was = (self.folder / "frozen").exists()
        if self.lie != "never-thaws":
            (self.folder / "frozen").unlink(missing_ok=True)
        return int(was or self.lie == "freezes-not")

    def vsock_endpoint(self, port: int) -> Endpoint:
        if self.lie != "vsock-of-the-dead":
            self.must_run()
        return Endpoint("127.0.0.1", port)
