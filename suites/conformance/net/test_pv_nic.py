"""net.pv_nic: the paravirtual network card is bound to its own driver and carries the traffic."""

from __future__ import annotations

from lab.suite import Guest, Machine, check, devices, linux

DRIVERS = {
    "virtio": "virtio_net",
    "vmxnet3": "vmxnet3",
    "vector": "uml-vector",
    "netvsc": "hv_netvsc",
    "xen": "vif",  # of the module xen_netfront; a driver of xenbus is named after the devices that it takes
}
PINGS = 3


@check("net.pv_nic", level="smoke", defect=True)
def test_driver_took_the_card(guest: Guest, machine: Machine) -> None:
    """Catches a machine with another card than the profile names, a missing driver, and a card without link."""
    devices.assert_driver_took_the_card(guest, machine, DRIVERS)


@check("net.pv_nic", defect=True)
def test_traffic_goes_through_the_card(guest: Guest, machine: Machine) -> None:
    """Catches a card whose traffic goes elsewhere, or is damaged on the way."""
    devices.assert_traffic_goes_through_the_card(guest, machine, DRIVERS)


@check("net.pv_nic", defect=True)
def test_gateway_answers(guest: Guest, machine: Machine) -> None:
    """Catches a guest without a route, a dead gateway, and a card that loses packets at rest."""
    devices.nic_driver(machine, DRIVERS)
    linux.require_tools(guest, "ping")
    _, gateway = linux.default_route(guest)
    result = guest.run("ping", "-c", str(PINGS), "-W", "10", gateway, timeout_s=60)
    lost = [line for line in result.out.splitlines() if "packet loss" in line]
    assert lost, f"ping says nothing of its packets: {result.out[-300:]} {result.err[-300:]}"
    assert " 0% packet loss" in lost[0], f"{gateway}: {lost[0]}"
