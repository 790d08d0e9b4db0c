"""The one connection to a dom0: lost and found again, and the way through it to a guest."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lab.contracts import Endpoint, SshLogin
from lab.errors import Blame, HostError
from lab.guests.channels import ssh
from lab.guests.identity import Identity
from lab.hypervisors import xen
from lab.hypervisors._xen_link import Link
from tests.hypervisors.xen_dom0 import FakeDom0, free_port


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeDom0]:
    with FakeDom0(tmp_path_factory.mktemp("dom0")).running() as fake:
        yield fake


@pytest.fixture
def link(fake: FakeDom0) -> Iterator[Link]:
    made = Link("far", fake.dom0)
    yield made
    made.close()


@pytest.fixture
def echo() -> Iterator[Endpoint]:
    """A guest's service: it says back what it hears, in capitals, and ends with its caller."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer(sock: socket.socket) -> None:
            with sock:
                while data := sock.recv(65536):
                    sock.sendall(data.upper())

        def serve() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(sock,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield Endpoint("127.0.0.1", int(listener.getsockname()[1]))
        listener.shutdown(socket.SHUT_RDWR)


def _says(endpoint: Endpoint, data: bytes) -> bytes:
    with socket.create_connection((endpoint.host, endpoint.port), timeout=30) as sock:
        writer = threading.Thread(target=lambda: (sock.sendall(data), sock.shutdown(socket.SHUT_WR)))
        writer.start()
        heard = b""
        while part := sock.recv(65536):
            heard += part
        writer.join()
        return heard


def test_words_arrive_as_they_were_given_and_a_script_gets_values_as_arguments(link: Link) -> None:
    hostile = "a b'\"$(reboot)`id`;\n*"

    assert link.run(("printf", "%s", hostile)).stdout.decode() == hostile
    assert link.sh('# say\nprintf "%s" "$1"', hostile).stdout.decode() == hostile


def test_programs_share_one_connection(link: Link) -> None:
    shells = {link.sh("# ask\necho $SSH_CONNECTION").out for _ in range(3)}

    assert len(shells) == 1


def test_a_guest_is_reached_through_the_dom0(link: Link, echo: Endpoint) -> None:
    near = link.reach(echo.host, echo.port)

    assert near.host == "127.0.0.1"
    assert near.port != echo.port
    assert link.reach(echo.host, echo.port) == near
    assert _says(near, b"hello") == b"HELLO"
    large = b"abc" * 700_000
    assert _says(near, large) == large.upper()
    link.forget(echo.host)
    assert ssh.probe(near, timeout_s=5) is ssh.Answer.UNREACHABLE


def test_several_callers_are_served_at_once(link: Link, echo: Endpoint) -> None:
    near = link.reach(echo.host, echo.port)
    first = socket.create_connection((near.host, near.port), timeout=30)
    with first:
        assert _says(near, b"second") == b"SECOND"
        first.sendall(b"first")
        assert first.recv(100) == b"FIRST"


def test_a_port_that_nobody_listens_on_hangs_up_as_a_guest_would(link: Link) -> None:
    near = link.reach("127.0.0.1", free_port())

    assert ssh.probe(near, timeout_s=10) is ssh.Answer.CLOSED


def test_a_dom0_that_is_lost_meanwhile_is_the_hosts_fault_and_is_found_again(tmp_path: Path) -> None:
    with FakeDom0(tmp_path / "dom0").running() as fake:
        link = Link("far", fake.dom0)
        assert link.run(("true",)).status == 0
        ender = threading.Timer(1.0, fake.shut_down)
        ender.start()

        with pytest.raises(HostError, match=r"far: the dom0 at 127\.0\.0\.1:\d+ was lost during 'sleep 60'") as caught:
            link.run(("sleep", "60"))

        ender.join()
        assert caught.value.blame is Blame.LAB
        assert caught.value.hint
        fake.boot()
        assert link.run(("echo", "again")).out == "again"
        link.close()


def test_a_dom0_that_does_not_answer_is_told_with_its_address(fake: FakeDom0) -> None:
    port = free_port()
    link = Link("far", replace(fake.dom0, endpoint=Endpoint("127.0.0.1", port)))

    with pytest.raises(HostError, match=f"far: the dom0 at 127.0.0.1:{port} was lost while connecting .*refused"):
        link.open()


def test_a_dom0_with_another_host_key_is_not_logged_in_to(fake: FakeDom0) -> None:
    login = replace(fake.dom0.login, host_key=Identity.make("other").host_key_public)
    link = Link("far", replace(fake.dom0, login=login))

    with pytest.raises(HostError, match="far: the dom0 shows the SSH host key") as caught:
        link.open()

    assert "compare the host key" in caught.value.hint


def test_a_dom0_that_refuses_the_key_is_told(fake: FakeDom0, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text(Identity.make("other").host_key_private)
    other.chmod(0o600)
    login = SshLogin(fake.dom0.login.user, other, fake.dom0.login.host_key)

    with pytest.raises(HostError, match=r"far: SSH on 127\.0\.0\.1:\d+ refuses the lab's key"):
        Link("far", replace(fake.dom0, login=login)).open()


def test_the_settings_of_an_inventory_lead_to_the_host(fake: FakeDom0) -> None:
    dom0 = fake.dom0
    settings = xen.Settings(
        address=dom0.endpoint.host,
        port=dom0.endpoint.port,
        user=dom0.login.user,
        private_key=str(dom0.login.private_key),
        host_key=dom0.login.host_key,
        guest_addresses=list(dom0.guest_addresses),
        gateway=dom0.gateway,
        folder=fake.places.folder,
        log_folder=fake.places.logs,
    )

    with xen.connect("fake", settings) as host:
        facts = host.facts()

    assert (facts.product, facts.version) == ("Xen", "4.17.7")
    assert facts.realness is xen.REALNESS
