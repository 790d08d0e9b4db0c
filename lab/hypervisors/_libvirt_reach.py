"""How the controller reaches a libvirt guest: ports of the host that QEMU's own network forwards, or its address."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from lab.contracts import Endpoint
from lab.errors import GuestHasNoNetwork, HypervisorRefused, LabBusy
from lab.hypervisors import _libvirt_power as power
from lab.hypervisors import _libvirt_sdk
from lab.hypervisors._libvirt_power import Machine

GUEST_ADDRESS = "10.0.2.15"  # what QEMU's DHCP server gives to the only client of such a network
_NETDEV = "hostua-nic-first"  # libvirt's name for what is behind the card of that alias
_FORWARD = re.compile(r"TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s+\S+\s+(\d+)\s")
_ADDRESS = re.compile(r"[0-9a-fA-F.:]{2,45}")


def endpoint(machine: Machine, guest_port: int) -> Endpoint:
    """Raises `HypervisorRefused` when stopped, `MachineVanished`, `GuestHasNoNetwork` while no address is known."""
    power.require_up(machine)
    if machine.site.network.kind == "user":
        return Endpoint("127.0.0.1", _forwarded(machine, guest_port))
    found = addresses(machine)
    if not found:
        network = machine.site.network
        raise GuestHasNoNetwork(
            f"{machine.name} has no address that {machine.site.host} knows",
            hint=f"does the guest ask by DHCP on {network.kind} {network.name}, or run the agent?",
        )
    if machine.site.maker is not None:
        return machine.site.maker.forward(found[0], guest_port)
    return Endpoint(found[0], guest_port)


def addresses(machine: Machine) -> Sequence[str]:
    """Of the guest, as libvirt knows them now; empty when it is not up."""
    if power.look(machine).state not in power.UP:
        return ()
    if machine.site.network.kind == "user":
        return (GUEST_ADDRESS,)
    sdk = _libvirt_sdk.load()
    sources = (
        sdk.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE,
        sdk.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_ARP,
        sdk.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT,
    )
    for source in sources:
        found = power.on_running(machine, "looking for addresses", partial(_told, source))
        if found:
            return found
    return ()


def _told(source: int, domain: Any) -> tuple[str, ...]:
    sdk = _libvirt_sdk.load()
    try:
        cards = domain.interfaceAddresses(source, 0) or {}
    except sdk.libvirtError:
        return ()  # this source knows nothing: no lease file, no agent
    entries = (entry for card in cards.values() for entry in card.get("addrs") or ())
    told = (str(entry["addr"]) for entry in entries if entry.get("type") == sdk.VIR_IP_ADDR_TYPE_IPV4)
    return tuple(address for address in told if _ADDRESS.fullmatch(address) and not address.startswith("127."))


def _forwarded(machine: Machine, guest_port: int) -> int:
    """The port of 127.0.0.1; made when it is not there, the one that led there before if it is free."""
    known = _leading(machine)
    if guest_port in known:
        return known[guest_port]
    before = power.mark_of(machine).ports.get(guest_port, 0)
    wanted = machine.site.ssh_port if guest_port == 22 and machine.site.ssh_port else before
    said = _forward(machine, guest_port, wanted)
    known = _leading(machine)
    if guest_port not in known and wanted and not machine.site.ssh_port:
        said = _forward(machine, guest_port, 0)  # somebody took it meanwhile
        known = _leading(machine)
    if guest_port not in known:
        if machine.site.ssh_port:
            raise LabBusy(f"port {wanted} of 127.0.0.1 is taken: {said}", hint="choose another ssh_port, or 0")
        raise HypervisorRefused(f"QEMU did not forward a port to port {guest_port} of the guest: {said}")
    power.change(machine, ports=known)
    return known[guest_port]


def _leading(machine: Machine) -> Mapping[int, int]:
    """TCP port of the guest: port of 127.0.0.1, as QEMU itself tells them."""
    table = human(machine, "info usernet").replace("\r", "\n") + "\n"
    return {int(found[2]): int(found[1]) for found in _FORWARD.finditer(table)}


def _forward(machine: Machine, guest_port: int, here: int) -> str:
    # Of port 0 the kernel chooses while QEMU binds, so nobody can take it in between.
    return human(machine, f"hostfwd_add {_NETDEV} tcp:127.0.0.1:{here}-{GUEST_ADDRESS}:{guest_port}").strip()


def human(machine: Machine, line: str) -> str:
    """One line to QEMU's monitor for people, through libvirt."""
    qemu = _libvirt_sdk.load_qemu()
    how = qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP
    return str(power.on_running(machine, "asking QEMU", lambda it: qemu.qemuMonitorCommand(it, line, how)))
