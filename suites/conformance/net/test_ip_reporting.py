"""net.ip_reporting: the host knows the guest's address."""

from __future__ import annotations

import re

from lab.suite import Capability, Guest, Machine, ReportsAddresses, RunsInGuest, check, linux, waiting, who_can

ANSWERS_WITHIN_S = 60.0
EXTRA = "10.99.17.3"


@check("net.ip_reporting", level="smoke", defect=True)
def test_host_reports_the_address(guest: Guest, machine: Machine) -> None:
    """Catches an address that is missing, out of date, or belongs to another guest."""
    reported = set(machine.addresses())
    assert reported, "the hypervisor knows no address of the running guest"
    own = set(re.findall(r"\binet6? ([0-9a-f.:]+)", guest.check("ip", "address")))
    assert own, "the guest has no address at all"
    assert reported <= own, f"the hypervisor reports {sorted(reported)}, the guest has {sorted(own)}"


@check("net.ip_reporting", needs=(Capability.GUEST_ADDRESSES, Capability.GUEST_COMMANDS), timeout_s=240)
def test_agent_tells_the_addresses_of_each_card(guest: Guest, machine: Machine) -> None:
    """Catches addresses that are made up by the host, stay when they are gone, or belong to another card."""
    reports = who_can(machine, ReportsAddresses)
    linux.settle(guest)
    agent = who_can(machine, RunsInGuest)
    waiting.until(agent.agent_answers, what="the guest's agent to answer", timeout_s=ANSWERS_WITHIN_S)
    nic = linux.first_nic(guest)
    guest.check("ip", "address", "add", f"{EXTRA}/32", "dev", nic.name)
    try:
        told = {mac.lower(): set(addresses) for mac, addresses in reports.agent_addresses().items()}
        own = _addresses(guest, nic.name)
        assert EXTRA in own, f"{nic.name} was given {EXTRA} and has {sorted(own)}"
        assert nic.mac in told, f"the agent tells nothing of {nic.name} ({nic.mac}): {told}"
        assert told[nic.mac] == own, f"{nic.name} has {sorted(own)}, the agent tells {sorted(told[nic.mac])}"
    finally:
        guest.check("ip", "address", "del", f"{EXTRA}/32", "dev", nic.name)
    left = {address for addresses in reports.agent_addresses().values() for address in addresses}
    assert EXTRA not in left, f"{EXTRA} is gone, and the agent still tells it"


def _addresses(guest: Guest, nic: str) -> set[str]:
    return set(re.findall(r"\binet6? ([0-9a-f.:]+)/", guest.check("ip", "address", "show", "dev", nic)))
