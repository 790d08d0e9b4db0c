"""A pytest-testinfra host over a channel that is already open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lab.contracts import Channel

if TYPE_CHECKING:
    from testinfra.host import Host

_TIMEOUT_S = 60.0


def over(channel: Channel, name: str) -> Host:
    """testinfra's `host` for the guest behind `channel`; every look is one command."""
    from testinfra.backend.base import BaseBackend, CommandResult
    from testinfra.host import Host

    class ChannelBackend(BaseBackend):
        """What testinfra asks for, answered by the lab's channel."""

        NAME = "interop-lab"

        def run(self, command: str, *args: str, **_ignored: Any) -> CommandResult:
            text = self.get_command(command, *args)
            # testinfra writes POSIX shell text, with its own quoting.
            done = channel.run(("/bin/sh", "-c", text), timeout_s=_TIMEOUT_S)
            return self.result(done.status, text.encode(errors="replace"), done.stdout, done.stderr)

        def get_encoding(self) -> str:
            return "utf-8"  # asking for it would start a Python in the guest

    return Host(ChannelBackend(name))
