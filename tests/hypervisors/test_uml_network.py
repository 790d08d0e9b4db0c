"""The network of a User-Mode Linux machine: its namespace, and the relay from this machine into it."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from lab.hypervisors import _uml_network as network
from lab.hypervisors import _uml_relay as relay
from lab.hypervisors import _uml_warden as warden
from tests.ports import own_port

REPOSITORY = Path(__file__).parents[2]
PATIENCE_S = 60.0
Serve = Callable[[Callable[[socket.socket], None]], socket.socket]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """A client's connection through a relay to a server that does that with what it accepts."""
    opened: list[socket.socket] = []

    def start(behave: Callable[[socket.socket], None]) -> socket.socket:
        server = socket.create_server(("127.0.0.1", 0))
        listener = socket.create_server(("127.0.0.1", 0))

        def accept() -> None:
            with server.accept()[0] as connection:
                behave(connection)

        threading.Thread(target=accept, daemon=True).start()
        between = relay.Relay(listener, "127.0.0.1", server.getsockname()[1])
        between.start()
        client = socket.create_connection(("127.0.0.1", between.port), PATIENCE_S)
        opened.extend((server, listener, client))
        return client

    yield start
    for one in opened:
        one.close()


def _read_all(connection: socket.socket) -> bytes:
    said = b""
    while data := connection.recv(1 << 16):
        said += data
    return said


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def test_an_end_of_sending_is_passed_on_and_the_answer_still_comes(serve: Serve) -> None:
    def count(connection: socket.socket) -> None:
        connection.sendall(b"%d" % len(_read_all(connection)))

    client = serve(count)
    client.sendall(bytes(3 << 20))
    client.shutdown(socket.SHUT_WR)

    assert _read_all(client) == b"%d" % (3 << 20)


def test_many_bytes_arrive_as_they_were_sent(serve: Serve) -> None:
    sent = os.urandom(5 << 20)
    client = serve(lambda connection: connection.sendall(sent))

    assert _read_all(client) == sent


def test_a_side_that_does_not_read_stops_the_other(serve: Serve) -> None:
    written: list[int] = []
    full = threading.Event()

    def flood(connection: socket.socket) -> None:
        connection.settimeout(1.0)
        try:
            while sum(written) < 1 << 30:
                written.append(connection.send(bytes(1 << 16)))
        except TimeoutError:
            full.set()

    serve(flood)

    assert full.wait(PATIENCE_S), "a gigabyte went into a client that reads nothing"
    assert sum(written) < 64 << 20


def test_a_reset_of_the_guest_is_no_orderly_end(serve: Serve) -> None:
    def begin_and_reset(connection: socket.socket) -> None:
        connection.sendall(b"begin")
        connection.recv(1)
        _reset(connection)

    client = serve(begin_and_reset)
    assert client.recv(5) == b"begin"
    client.sendall(b"x")

    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_a_reset_of_the_client_reaches_the_guest(serve: Serve) -> None:
    seen: list[type[BaseException]] = []
    done = threading.Event()

    def wait(connection: socket.socket) -> None:
        try:
            while connection.recv(1 << 16):
                pass
        except OSError as reason:
            seen.append(type(reason))
        done.set()

    client = serve(wait)
    client.sendall(b"x")
    _reset(client)

    assert done.wait(PATIENCE_S)
    assert seen == [ConnectionResetError]


def test_a_refusal_is_passed_on_at_once() -> None:
    with own_port() as port, socket.create_server(("127.0.0.1", 0)) as listener:
        between = relay.Relay(listener, "127.0.0.1", port)
        between.start()
        # The reset may come before connect() has returned, and is its error then.
        with (
            pytest.raises(ConnectionResetError),
            socket.create_connection(("127.0.0.1", between.port), PATIENCE_S) as client,
        ):
            client.recv(1)


IN_NAMESPACE = """
import os, socket, sys, threading
from lab.hypervisors import _uml_network as network
from lab.hypervisors._uml_relay import Relay
from pathlib import Path
echo, silent = (socket.socket(fileno=int(word)) for word in sys.argv[1:])
network.enter_namespaces()
if os.fork() == 0:
    network.make_tap(network.tap(0))
    network.bring_up("lo")
    network.set_address(network.tap(0), network.GATEWAY, network.PREFIX)
    server = socket.create_server((network.GATEWAY, 7))
    Relay(echo, network.GATEWAY, 7).start()
    Relay(silent, network.GUEST, 22).start()
    print(os.getpid(), os.geteuid(), *sorted(path.name for path in Path("/proc/self/net").glob("arp")), flush=True)
    print(Path("/proc/self/net/dev").read_text().count("lab0:"), flush=True)
    connection, _ = server.accept()
    connection.sendall(connection.recv(100))
    sys.stdin.read()
    os._exit(0)
os.wait()
"""


@pytest.fixture
def namespace() -> Iterator[tuple[subprocess.Popen[str], socket.socket, socket.socket]]:
    """A process in namespaces of its own, an echo in there behind the first listener, nobody behind the second."""
    with socket.create_server(("127.0.0.1", 0)) as echo, socket.create_server(("127.0.0.1", 0)) as silent:
        process = subprocess.Popen(
            [sys.executable, "-c", IN_NAMESPACE, str(echo.fileno()), str(silent.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=(echo.fileno(), silent.fileno()),
            cwd=REPOSITORY,
        )
        yield process, echo, silent
        assert process.stdin is not None
        process.stdin.close()
        process.wait(PATIENCE_S)
        process.stdout.close()  # type: ignore[union-attr]


def test_a_listener_of_this_machine_leads_into_a_namespace_that_has_its_own_network(
    namespace: tuple[subprocess.Popen[str], socket.socket, socket.socket],
) -> None:
    process, echo, silent = namespace
    assert process.stdout is not None
    assert process.stdout.readline().split() == ["1", "0", "arp"]  # process 1, root there
    assert process.stdout.readline() == "1\n"
    assert not Path("/sys/class/net/lab0").exists()

    with socket.create_connection(silent.getsockname(), PATIENCE_S) as waiting_client:
        with socket.create_connection(echo.getsockname(), PATIENCE_S) as client:
            client.sendall(b"there and back")
            assert client.recv(100) == b"there and back"

        # The kernel gives up on the silent guest's address after about 3 s; the client must not hear of it.
        waiting_client.settimeout(5.0)
        with pytest.raises(TimeoutError):
            waiting_client.recv(1)


def test_where_user_namespaces_are_off_the_warden_names_the_setting(tmp_path: Path) -> None:
    orders = {"program": "", "argv": [], "read_only": {}, "writable": {}, "memory_mib": 1, "environment": {}}
    script = 'echo 0 >/proc/sys/user/max_user_namespaces && exec "$@"'
    command = [sys.executable, "-S", "-P", "-m", warden.__name__]

    finished = subprocess.run(
        ["unshare", "--map-root-user", "sh", "-c", script, "sh", *command],
        input=json.dumps(orders),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        check=False,
    )

    answer = json.loads(finished.stdout)
    assert answer["error"].startswith("this machine does not let us make user namespaces: ")
    assert "sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces above 0" in answer["hint"]
    assert list(tmp_path.iterdir()) == []


def test_neighbours_are_those_that_answered() -> None:
    table = (
        "IP address       HW type     Flags       HW address            Mask     Device\n"
        "192.168.64.2     0x1         0x2         02:08:24:36:66:f9     *        lab0\n"
        "192.168.64.9     0x1         0x0         00:00:00:00:00:00     *        lab0\n"
    )

    assert network.neighbours(table) == ["192.168.64.2"]


def test_a_client_that_leaves_a_silent_guest_frees_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "_NOT_THERE_YET", tuple(range(1, 200)))  # a refusal counts as silence here
    with own_port() as port, socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        between = relay.Relay(listener, "127.0.0.1", port)
        between.start()
        for _ in range(relay.CONNECTIONS * 2):
            socket.create_connection(("127.0.0.1", between.port), PATIENCE_S).close()
        with (
            socket.create_server(("127.0.0.1", port)) as server,
            socket.create_connection(("127.0.0.1", between.port), PATIENCE_S) as client,
        ):
            threading.Thread(target=_greet, args=(server,), daemon=True).start()

            assert client.recv(5) == b"hello"


def _greet(server: socket.socket) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection, suppress(OSError):
            connection.sendall(b"hello")
