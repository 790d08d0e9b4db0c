"""net.pv_nic: the paravirtual network card is bound to its own driver and carries the traffic."""

from __future__ import annotations

import secrets
from pathlib import PurePosixPath

from lab.suite import Guest, Machine, check, linux, not_applicable

DRIVERS = {
    "virtio": "virtio_net",
    "vmxnet3": "vmxnet3",
    "vector": "uml-vector",
    "netvsc": "hv_netvsc",
    "xen": "xen_netfront",
}
TRANSFER = 256 << 10  # bytes
PINGS = 3


def _driver(machine: Machine) -> str:
    model = machine.spec.profile.nic
    if model not in DRIVERS:
        not_applicable(f"the profile's network card is {model}, which is not paravirtual")
    return DRIVERS[model]


@check("net.pv_nic", level="smoke")
def test_driver_took_the_card(guest: Guest, machine: Machine) -> None:
    """Catches a machine with another card than the profile names, a missing driver, and a card without link."""
    driver = _driver(machine)
    nic = linux.first_nic(guest)
    assert driver in nic.drivers, f"{nic.name} is driven by {', '.join(nic.drivers) or 'nothing'}, expected {driver}"
    assert nic.carrier, f"{nic.name} has no link"


@check("net.pv_nic")
def test_traffic_goes_through_the_card(guest: Guest, machine: Machine) -> None:
    """Catches a card whose traffic goes elsewhere, or is damaged on the way."""
    _driver(machine)
    nic = linux.first_nic(guest)
    content = secrets.token_bytes(TRANSFER)
    path = PurePosixPath("/tmp/lab-traffic")
    received, sent = linux.counters(guest, nic.name)
    guest.write(path, content)
    came_back = guest.read(path)
    received_then, sent_then = linux.counters(guest, nic.name)
    guest.check("rm", str(path))
    assert came_back == content, "the file came back changed"
    assert received_then - received >= TRANSFER, f"sent {TRANSFER} bytes, {nic.name} counts {received_then - received}"
    assert sent_then - sent >= TRANSFER, f"read {TRANSFER} bytes, {nic.name} counts {sent_then - sent}"


@check("net.pv_nic")
def test_gateway_answers(guest: Guest, machine: Machine) -> None:
    """Catches a guest without a route, a dead gateway, and a card that loses packets at rest."""
    _driver(machine)
    linux.require_tools(guest, "ping")
    _, gateway = linux.default_route(guest)
    result = guest.run("ping", "-c", str(PINGS), "-W", "10", gateway, timeout_s=60)
    lost = [line for line in result.out.splitlines() if "packet loss" in line]
    assert lost, f"ping says nothing of its packets: {result.out[-300:]} {result.err[-300:]}"
    assert " 0% packet loss" in lost[0], f"{gateway}: {lost[0]}"
