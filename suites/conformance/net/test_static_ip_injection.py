"""net.static_ip_injection: the host gives the guest its address and route."""

from __future__ import annotations

import re

from lab.suite import Guest, Machine, check, linux, not_applicable


@check("net.static_ip_injection", defect=True)
def test_address_given_by_the_host_is_in_force(guest: Guest, machine: Machine) -> None:
    """Catches a guest that ignores the address or gateway that the host handed in."""
    arguments = guest.check("cat", "/proc/cmdline")
    given = re.search(r"\blab\.ip=([0-9.]+)/(\d+),([0-9.]+)", arguments)
    if given is None:
        not_applicable("the host handed no address to this guest")
    address, prefix, gateway = given.groups()
    own = re.findall(r"\binet ([0-9.]+/\d+)", guest.check("ip", "address"))
    assert f"{address}/{prefix}" in own, f"the host gave {address}/{prefix}, the guest has {own}"
    assert linux.default_route(guest)[1] == gateway, (
        f"the host gave the gateway {gateway}: {linux.default_route(guest)}"
    )
    assert address in machine.addresses(), f"the host gave {address} and reports {list(machine.addresses())}"
