"""Real SSH servers on this machine: OpenSSH's sshd and dropbear, each on a free port with keys of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab import process, waiting
from lab.contracts import Endpoint, SshLogin
from lab.guests.channels import ssh
from lab.guests.identity import Identity
from tests.ports import own_port


@dataclass(frozen=True)
class Server:
    """A running SSH server and how to log in."""

    endpoint: Endpoint
    login: SshLogin
    pid: int


@pytest.fixture(scope="session")
def client_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private key; its public line lies beside it with the ending .pub."""
    folder = tmp_path_factory.mktemp("client-key")
    key = Identity.make("client")
    path = folder / "id"
    path.write_text(key.host_key_private)
    path.chmod(0o600)
    path.with_suffix(".pub").write_text(key.host_key_public + "\n")
    return path


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory, client_key: Path) -> Iterator[Server]:
    """OpenSSH's sshd, as the user who runs the tests."""
    program = process.find("sshd", package="openssh-server")
    folder = tmp_path_factory.mktemp("sshd")
    identity = Identity.make("sshd")
    host_key = _private_file(folder / "host_key", identity.host_key_private)
    config = folder / "sshd_config"
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd locks its unprivileged half in
    with own_port() as port:
        config.write_text(
            f"Port {port}\nListenAddress 127.0.0.1\nHostKey {host_key}\nAuthorizedKeysFile {client_key}.pub\n"
            "StrictModes no\nUsePAM no\nPasswordAuthentication no\nPidFile none\nPermitRootLogin prohibit-password\n"
            "MaxStartups 100\n"
        )
        yield from _serving((program, "-D", "-e", "-f", str(config)), port, identity, client_key)


@pytest.fixture(scope="session")
def dropbear(tmp_path_factory: pytest.TempPathFactory, client_key: Path) -> Iterator[Server]:
    """dropbear in a root of its own where every program is busybox, as in a small guest. Needs root."""
    program = process.find("dropbear", package="dropbear-bin")
    busybox = process.find("busybox", package="busybox")
    folder = tmp_path_factory.mktemp("dropbear")
    identity = Identity.make("dropbear")
    openssh_key = _private_file(folder / "openssh_key", identity.host_key_private)
    root = folder / "root"
    _small_root(root, (Path(program), Path(busybox)), client_key)
    convert = process.find("dropbearconvert", package="dropbear-bin")
    process.check((convert, "openssh", "dropbear", str(openssh_key), str(root / "host_key")), timeout_s=60)
    with own_port() as port:
        start = (
            f"mount --rbind /dev {root}/dev && mount -t proc proc {root}/proc && "
            f"exec chroot {root} {program} -F -E -s -p 127.0.0.1:{port} -r /host_key -P /dropbear.pid"
        )
        yield from _serving(("unshare", "--mount", "/bin/sh", "-c", start), port, identity, client_key)


def _serving(command: tuple[str, ...], port: int, identity: Identity, client_key: Path) -> Iterator[Server]:
    endpoint = Endpoint("127.0.0.1", port)
    user = "root" if os.getuid() == 0 else getpass.getuser()
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env={"PATH": os.environ["PATH"]}) as started:
        try:
            waiting.until(
                lambda: ssh.probe(endpoint, timeout_s=5) is ssh.Answer.BANNER, what=f"{command[0]}", timeout_s=120
            )
            yield Server(endpoint, SshLogin(user, client_key, identity.host_key_public), started.pid)
        finally:
            process.end(started)


def _small_root(root: Path, programs: tuple[Path, ...], client_key: Path) -> None:
    for name in ("bin", "dev", "proc", "tmp", "etc", "root/.ssh"):
        (root / name).mkdir(parents=True)
    for program in programs:
        libraries = process.run(("ldd", str(program)), timeout_s=60).stdout
        for path in (str(program), *(word for word in libraries.split() if word.startswith("/"))):
            target = root / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
    busybox = root / str(programs[1]).lstrip("/")
    for applet in process.check((str(programs[1]), "--list"), timeout_s=60).split():
        link = root / "bin" / applet
        if not link.exists():
            link.symlink_to("/" + str(busybox.relative_to(root)))
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/shells").write_text("/bin/sh\n")
    (root / "root").chmod(0o700)
    (root / "root/.ssh").chmod(0o700)
    _private_file(root / "root/.ssh/authorized_keys", client_key.with_suffix(".pub").read_text())


def _private_file(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path
