"""channel.sockets: host and guest speak over sockets that need no network."""

from __future__ import annotations

import secrets
import socket

from lab.suite import Capability, Guest, Machine, OffersVsock, check, linux, who_can

PORT = 5227
TRANSFER = 128 << 10  # bytes
WITHIN_S = 60.0


@check("channel.sockets", needs=(Capability.VSOCK,), timeout_s=240)
def test_bytes_go_there_and_back(guest: Guest, machine: Machine) -> None:
    """Catches a device without driver, a socket that ends nowhere, and bytes that are lost or changed on the way."""
    linux.settle(guest)
    linux.sh(guest, "modprobe vmw_vsock_virtio_transport 2>/dev/null || true")
    linux.require_tools(guest, "socat")
    # Echoes one connection, in capitals: what comes back was in the guest.
    serve = f"setsid socat VSOCK-LISTEN:{PORT} EXEC:'tr a-f A-F' </dev/null >/dev/null 2>&1 &"
    linux.sh(guest, serve)
    endpoint = who_can(machine, OffersVsock).vsock_endpoint(PORT)
    sent = secrets.token_hex(TRANSFER // 2).encode()
    with socket.create_connection((endpoint.host, endpoint.port), timeout=WITHIN_S) as line:
        line.sendall(sent)
        line.shutdown(socket.SHUT_WR)
        back = b""
        while len(back) < len(sent) and (piece := line.recv(65536)):
            back += piece
    assert back == sent.upper(), (
        f"sent {len(sent)} bytes, {len(back)} came back, and not what the guest should make of them"
    )
