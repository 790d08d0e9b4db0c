"""SSH into a guest: the channel that every family with a POSIX shell has. The connection itself is `lab.ssh`."""

from __future__ import annotations

from lab.ssh._dial import Answer, probe
from lab.ssh.channel import SshChannel, connect

__all__ = ["Answer", "SshChannel", "connect", "probe"]
