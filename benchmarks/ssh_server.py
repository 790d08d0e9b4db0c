"""An SSH server of this machine on loopback, and the words for OpenSSH's client to log in to a server or a guest."""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab import process, waiting
from lab.contracts import Endpoint, SshLogin
from lab.guests.channels import ssh
from lab.guests.identity import Identity


@dataclass(frozen=True)
class Door:
    """Where somebody answers SSH, and how to log in."""

    endpoint: Endpoint
    login: SshLogin

    def options(self) -> list[str]:
        """Of OpenSSH's programs; nothing of this user's own settings takes part."""
        given = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "ConnectTimeout=60")
        options = [word for option in given for word in ("-o", option)]
        return ["-F", "none", "-i", str(self.login.private_key), "-p", str(self.endpoint.port), *options]

    @property
    def address(self) -> str:
        return f"{self.login.user}@{self.endpoint.host}"


@contextmanager
def native(folder: Path) -> Iterator[Door]:
    """OpenSSH's sshd as this user, on a free port of 127.0.0.1."""
    server, client = Identity.make("server"), Identity.make("client")
    for name, text in (("host_key", server.host_key_private), ("key", client.host_key_private)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    (folder / "key.pub").write_text(client.host_key_public + "\n")
    endpoint = Endpoint("127.0.0.1", free_port())
    (folder / "sshd_config").write_text(
        f"Port {endpoint.port}\nListenAddress 127.0.0.1\n"
        f"HostKey {folder}/host_key\nAuthorizedKeysFile {folder}/key.pub\n"
        "StrictModes no\nUsePAM no\nPasswordAuthentication no\nPidFile none\nPermitRootLogin prohibit-password\n"
    )
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd locks its unprivileged half in
    program = process.find("sshd", package="openssh-server")
    started = subprocess.Popen([program, "-D", "-e", "-f", folder / "sshd_config"], stderr=subprocess.DEVNULL)
    try:
        waiting.until(lambda: ssh.probe(endpoint, timeout_s=5) is ssh.Answer.BANNER, what="sshd to greet", timeout_s=30)
        yield Door(endpoint, SshLogin(getpass.getuser(), folder / "key", server.host_key_public))
    finally:
        process.end(started)


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
