"""SSH passes the contract of a channel, over OpenSSH with this machine's shell and over dropbear with busybox."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.contracts import Channel
from lab.guests.channels import ssh
from lab.testing.channel import ChannelContract


@pytest.fixture(params=["sshd", "dropbear"])
def channel(request: pytest.FixtureRequest) -> Iterator[Channel]:
    server = request.getfixturevalue(request.param)
    channel = ssh.connect(server.endpoint, server.login, timeout_s=60)
    yield channel
    channel.close()


class TestSsh(ChannelContract):
    """All of it."""
