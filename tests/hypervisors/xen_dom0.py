"""A dom0 for tests: a real SSH server of this machine behind which a toolstack keeps its domains in files."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab import process, waiting
from lab.contracts import Endpoint, Firmware, Image, MachineSpec, Owner, Profile, Realness, SshLogin
from lab.guests.channels import ssh
from lab.guests.identity import Identity
from lab.hypervisors import _xen_host
from lab.hypervisors._xen_dom0 import Dom0
from lab.hypervisors._xen_host import Places, XenHost
from lab.hypervisors._xen_machine import XenMachine

HARDWARE = Profile("xen-pv", Firmware.NONE, "xenpv", "xen", "xen", 1, 192, max_vcpus=2, max_memory_mib=320)
_PROGRAMS = Path(__file__).with_name("fake_dom0")


class FakeDom0:
    """Its folder, its server, and what a test does to it behind the driver's back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("domains", "faults", "log/console", "lab"):
            (folder / name).mkdir(parents=True)
        self._server, self._client = Identity.make("dom0"), Identity.make("client")
        self._key = _private(folder / "client_key", self._client.host_key_private)
        self._host_key = _private(folder / "host_key", self._server.host_key_private)
        (folder / "authorized").write_text(self._client.host_key_public + "\n")
        self.port = free_port()
        self._sshd: subprocess.Popen[bytes] | None = None

    @property
    def dom0(self) -> Dom0:
        user = "root" if os.getuid() == 0 else getpass.getuser()
        return Dom0(
            endpoint=Endpoint("127.0.0.1", self.port),
            login=SshLogin(user, self._key, self._server.host_key_public),
            realness=Realness.SIMULATED,
            bridge="xenbr0",
            guest_addresses=("127.0.0.7", "127.0.0.8", "127.0.0.9"),
            guest_prefix=8,
            gateway="127.0.0.1",
        )

    @property
    def places(self) -> Places:
        return Places(str(self.folder / "lab"), str(self.folder / "log"))

    @contextmanager
    def running(self) -> Iterator[FakeDom0]:
        """With its SSH server, and with a process that looks like a xenconsoled that logs guests."""
        words = [str(self.folder / "xenconsoled"), "-c", "read line", "--log=all"]
        with subprocess.Popen(words, executable="/bin/sh", stdin=subprocess.PIPE) as console:
            try:
                self.boot()
                yield self
            finally:
                self.shut_down()
                process.end(console)

    def boot(self) -> None:
        """Start the SSH server."""
        config = self.folder / "sshd_config"
        path = f"{_PROGRAMS}:{os.environ['PATH']}:/usr/sbin:/sbin"
        config.write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self._host_key}\n"
            f"AuthorizedKeysFile {self.folder}/authorized\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
            f"PidFile none\nPermitRootLogin prohibit-password\nSetEnv FAKE_XEN={self.folder} PATH={path}\n"
        )
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # where sshd locks its unprivileged half in
        program = process.find("sshd", package="openssh-server")
        self._sshd = subprocess.Popen((program, "-D", "-e", "-f", str(config)), stderr=subprocess.DEVNULL)
        endpoint = Endpoint("127.0.0.1", self.port)
        waiting.until(lambda: ssh.probe(endpoint, timeout_s=5) is ssh.Answer.BANNER, what="sshd", timeout_s=30)

    def shut_down(self) -> None:
        """End the SSH server and what runs in its sessions."""
        if self._sshd is None:
            return
        import psutil

        below = psutil.Process(self._sshd.pid).children(recursive=True) if self._sshd.poll() is None else []
        process.end(self._sshd)
        for one in below:
            if one.is_running():
                one.kill()
        self._sshd = None

    @contextmanager
    def host(self, *, like: Dom0 | None = None, name: str = "fake") -> Iterator[XenHost]:
        with _xen_host.connect_to(name, like or self.dom0, self.places) as host:
            yield host

    def domains(self) -> dict[str, dict[str, Any]]:
        found = (json.loads(path.read_text()) for path in (self.folder / "domains").glob("*.json"))
        return {one["name"]: one for one in found}

    def put(self, name: str, **values: Any) -> None:
        """Change a domain, or make one that is not the lab's."""
        plain = {"domid": 900, "name": name, "memory": 64, "vcpus": 1, "flags": "-b----", "disks": [], "cards": []}
        domain = {**plain, "uuid": "11111111-2222-3333-4444-555555555555", **self.domains().get(name, {}), **values}
        (self.folder / f"domains/{domain['domid']}.json").write_text(json.dumps(domain))

    def kill(self, name: str) -> None:
        """Take a domain away without being asked."""
        (self.folder / f"domains/{self.domains()[name]['domid']}.json").unlink()

    def fault(self, name: str, content: str = "") -> None:
        (self.folder / "faults" / name).write_text(content)

    def mend(self) -> None:
        shutil.rmtree(self.folder / "faults")
        (self.folder / "faults").mkdir()

    def calls(self) -> list[str]:
        """What xl was called with, in order."""
        file = self.folder / "calls"
        return file.read_text().splitlines() if file.exists() else []

    def spec(self, name: str = "one") -> MachineSpec:
        """A machine with a kernel, a RAM disk, a seed and a data disk, none of which is real."""
        files = {part: self.folder / f"image.{part}" for part in ("disk", "kernel", "initrd", "seed")}
        for part, file in files.items():
            if not file.exists():
                file.write_bytes(part.encode() * 100 + bytes(200_000) + b"end")
        image = Image(
            "tiny",
            "sha256:" + "5" * 64,
            files["disk"],
            "raw",
            files["kernel"],
            files["initrd"],
            kernel_arguments="quiet",
        )
        owner = Owner("run", "host/guest/profile", os.getpid(), process.start_time(os.getpid()) or 0)
        return MachineSpec(name, owner, image, HARDWARE, files["seed"], data_disk_mib=4)

    def hardware(self, **values: Any) -> MachineSpec:
        return replace(self.spec(), profile=replace(HARDWARE, **values))


@contextmanager
def serving(folders: pytest.TempPathFactory) -> Iterator[FakeDom0]:
    """A dom0 that answers, and a cache of its own."""
    with pytest.MonkeyPatch.context() as patch, FakeDom0(folders.mktemp("dom0")).running() as fake:
        patch.setenv("XDG_CACHE_HOME", str(folders.mktemp("cache")))
        yield fake


@contextmanager
def emptied(running: FakeDom0) -> Iterator[FakeDom0]:
    """The same without the faults and domains of the test before."""
    yield running
    running.mend()
    for path in (running.folder / "domains").glob("*.json"):
        path.unlink()


@contextmanager
def made(fake: FakeDom0, host: XenHost) -> Iterator[XenMachine]:
    """A machine of that host."""
    machine = host.create(fake.spec())
    assert isinstance(machine, XenMachine)
    yield machine
    fake.mend()
    machine.destroy()


def until_none(folder: Path, pattern: str) -> None:
    """Wait until a script of the driver, which goes on after its connection ended, has tidied up."""
    waiting.until(lambda: not list(folder.glob(pattern)), what=f"{folder}/{pattern} to go", timeout_s=30)


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _private(path: Path, content: str) -> Path:
    path.write_text(content)
    path.chmod(0o600)
    return path
