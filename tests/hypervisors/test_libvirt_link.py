"""The connection to libvirt: settings, daemons that are not there, SSH with a pinned key, libvirt's own test driver."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import ValidationError

from lab import process, waiting
from lab.contracts import Endpoint
from lab.errors import HostError
from lab.guests.channels import ssh
from lab.guests.identity import Identity
from lab.hypervisors import _libvirt_capabilities as capabilities
from lab.hypervisors import _libvirt_sdk, _libvirt_ssh, libvirt
from lab.hypervisors._libvirt_accelerator import PROGRAM, RESULT
from lab.hypervisors._libvirt_capabilities import Offers
from lab.hypervisors._libvirt_daemon import OwnDaemon
from lab.hypervisors._libvirt_link import Kind, LibvirtRefused, Link
from tests.hypervisors import libvirt_own as own

KEY = "ssh-ed25519 " + "A" * 68


@pytest.fixture
def in_memory() -> Iterator[Link]:
    """Libvirt's test driver: a hypervisor in the memory of this process, with one domain that runs."""
    link = Link("memory", "test:///default")
    yield link
    link.close()


# ---------------------------------------------------------------------------------------------------------
# Calls


def test_calls_come_to_libvirt(in_memory: Link) -> None:
    assert in_memory.ask("listing", lambda it: [domain.name() for domain in it.listAllDomains(0)]) == ["test"]


def test_an_error_says_host_action_and_libvirts_words(in_memory: Link) -> None:
    with pytest.raises(LibvirtRefused, match="memory: looking for it: Domain not found") as refused:
        in_memory.ask("looking for it", lambda it: it.lookupByName("nobody"))

    assert refused.value.kind is Kind.NO_DOMAIN


def test_an_event_wakes_who_waits(in_memory: Link) -> None:
    sdk = _libvirt_sdk.load()
    in_memory.ask("pausing", lambda it: it.lookupByName("test").suspend())

    def is_paused() -> bool:
        return bool(in_memory.ask("looking", lambda it: it.lookupByName("test").state()[0] == sdk.VIR_DOMAIN_PAUSED))

    assert in_memory.events.until(is_paused, what="a pause", timeout_s=30)


def test_a_link_that_was_closed_opens_again(in_memory: Link) -> None:
    in_memory.open()
    in_memory.close()
    in_memory.close()

    assert in_memory.ask("asking", lambda it: it.getHostname())


def test_a_daemon_that_is_not_there_is_told_with_what_to_do(tmp_path: Path) -> None:
    link = Link("away", f"qemu+unix:///session?socket={tmp_path}/none")

    with pytest.raises(HostError, match=r"away: libvirt does not answer at qemu\+unix.*No such file") as refused:
        link.open()

    assert refused.value.hint == "is libvirtd or virtqemud running there?"


def test_a_socket_that_may_not_be_opened_is_told_with_what_to_do(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may open every socket")
    (tmp_path / "shut").mkdir(mode=0)
    link = Link("shut", f"qemu+unix:///session?socket={tmp_path}/shut/sock")

    with pytest.raises(HostError) as refused:
        link.open()

    assert refused.value.hint == "this user may not open the daemon's socket: is it in the group libvirt?"


def test_a_daemon_that_cannot_start_is_told_with_its_words(tmp_path: Path) -> None:
    daemon = OwnDaemon(tmp_path, "first")
    settings = tmp_path / "first/c/libvirt"
    settings.mkdir(parents=True)
    (settings / "libvirtd.conf").write_text("this is no setting\n")

    with pytest.raises(HostError, match=r"libvirtd ended with status [1-9].* while starting: .*libvirtd.conf"):
        daemon.ensure()


# ---------------------------------------------------------------------------------------------------------
# Settings


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"uri": "http://x/system"}, "uri"),
        ({"uri": "qemu:///system?socket=/x"}, "uri"),
        ({"uri": "qemu+unix:///system?socket=/x&command=y"}, "uri"),
        ({"uri": "qemu+unix:///system?socket=x"}, "uri"),
        ({"migration": "by-hand"}, "migration"),
        ({"uri": "qemu+ssh://kvm-01/system"}, "lab_private_key, lab_host_key: missing"),
        ({"uri": "qemu:///system", "host_key": KEY}, "lab_host_key: only with"),
        ({"uri": "qemu+ssh://kvm-01/system", "private_key": "/k", "host_key": KEY}, "lab_network: the ports"),
        ({"network": "network:a b"}, "network"),
        ({"folder": "/a/../b"}, "lab_folder: no .. in it"),
        ({"host_key": "ssh-ed25519 x y"}, "host_key"),
    ],
)
def test_settings_that_cannot_work_are_refused(values: dict[str, str], words: str) -> None:
    with pytest.raises(ValidationError, match=words.replace(".", r"\.")):
        libvirt.Settings.model_validate(values)


def test_a_far_host_is_reached_with_one_key_and_one_known_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    settings = libvirt.Settings(
        uri="qemu+ssh://lab@kvm-01:2222/system", private_key="/keys/lab key", host_key=KEY, network="network:default"
    )

    uri = _libvirt_ssh.uri("kvm-01", settings)

    told = {key: value[0] for key, value in parse_qs(urlsplit(uri).query).items()}
    assert told["keyfile"] == "/keys/lab key"
    program = Path(told["command"])
    assert f"-o UserKnownHostsFile={program.parent}/known_hosts -o" in program.read_text()
    assert "-o StrictHostKeyChecking=yes -o" in program.read_text()
    assert (program.parent / "known_hosts").read_text() == f"[kvm-01]:2222 {KEY}\n"


def test_what_a_host_does_not_offer_is_refused_with_the_reason() -> None:
    lean = Offers("9.0.0", "7.2.0", "/usr/bin/qemu", "tcg", "", "", has_tpm=False, has_uefi=False)
    from lab.contracts import Firmware, Profile

    plain = Profile("p", Firmware.BIOS, "q35", "virtio", "virtio", 1, 64)
    trusted = Profile("p", Firmware.BIOS, "q35", "virtio", "virtio", 1, 64, tpm=True)
    firm = Profile("p", Firmware.UEFI, "q35", "virtio", "virtio", 1, 64)

    assert capabilities.refuses(lean, plain) is None
    assert "no emulated TPM" in (capabilities.refuses(lean, trusted) or "")
    assert "no UEFI firmware" in (capabilities.refuses(lean, firm) or "")


def test_the_proof_of_kvm_is_the_program_of_the_qemu_driver() -> None:
    from lab.hypervisors import _qemu_accelerator

    assert PROGRAM.ljust(510, b"\0") + b"\x55\xaa" == _qemu_accelerator.boot_sector()
    assert _qemu_accelerator.expected() == RESULT.decode()


# ---------------------------------------------------------------------------------------------------------
# Over a real SSH server


_NETCAT = """
import os, select, socket, sys
far = socket.socket(socket.AF_UNIX)
far.connect(sys.argv[-1])
while True:
    for ready in select.select([0, far], [], [])[0]:
        data = os.read(0, 65536) if ready == 0 else far.recv(65536)
        if not data:
            sys.exit()
        far.sendall(data) if ready == 0 else os.write(1, data)
"""


class _Far:
    """A libvirtd of the lab's own behind a real SSH server of this machine."""

    def __init__(self, folder: Path) -> None:
        self.daemon = OwnDaemon(folder, "first")
        self._server, client = Identity.make("far"), Identity.make("client")
        self.key, host_key = folder / "client_key", folder / "host_key"
        for path, content in ((self.key, client.host_key_private), (host_key, self._server.host_key_private)):
            path.write_text(content)
            path.chmod(0o600)
        (folder / "authorized").write_text(client.host_key_public + "\n")
        self.folder, self.port = folder, _free_port()
        self.socket = Path(parse_qs(urlsplit(self.daemon.uri).query)["socket"][0])
        self.netcat = folder / "netcat"
        self.netcat.write_text(f"#!{sys.executable}\n{_NETCAT}")
        self.netcat.chmod(0o700)

    def start(self) -> subprocess.Popen[bytes]:
        config = self.folder / "sshd_config"
        config.write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.folder}/host_key\n"
            f"AuthorizedKeysFile {self.folder}/authorized\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
            "PidFile none\nPermitRootLogin prohibit-password\n"
        )
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        program = process.find("sshd", package="openssh-server")
        started = subprocess.Popen((program, "-D", "-e", "-f", str(config)), stderr=subprocess.DEVNULL)
        endpoint = Endpoint("127.0.0.1", self.port)
        waiting.until(lambda: ssh.probe(endpoint, timeout_s=5) is ssh.Answer.BANNER, what="sshd", timeout_s=30)
        return started

    def link(self, host_key: str = "") -> Link:
        user = "root" if os.getuid() == 0 else getpass.getuser()
        settings = libvirt.Settings(
            uri=f"qemu+ssh://{user}@127.0.0.1:{self.port}/session",
            private_key=str(self.key),
            host_key=host_key or self._server.host_key_public,
            network="network:default",
        )
        # Of root libvirt's own helper finds the system's daemon alone, so the test brings a netcat for the lab's.
        told = {"proxy": "netcat", "netcat": str(self.netcat), "socket": str(self.socket)}
        return Link("far", "&".join((_libvirt_ssh.uri("far", settings), *(f"{key}={told[key]}" for key in told))))


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Far]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        far = _Far(tmp_path_factory.mktemp("far"))
        far.daemon.ensure()
        server = far.start()
        yield far
        process.end(server)
        own.end(far.daemon)


def test_a_libvirt_behind_ssh_answers_and_is_found_again_when_its_daemon_died(far: _Far) -> None:
    link = far.link()
    assert link.ask("asking for its name", lambda it: it.getHostname())

    own.end(far.daemon, kill=True)
    far.daemon.ensure()

    assert link.ask("asking for its name", lambda it: it.getHostname())
    link.close()


def test_a_host_with_another_key_is_not_spoken_to(far: _Far) -> None:
    link = far.link(Identity.make("another").host_key_public)

    with pytest.raises(HostError, match="Host key verification failed") as refused:
        link.open()

    assert refused.value.hint == "the host shows another SSH key than lab_host_key"


def _free_port() -> int:
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
