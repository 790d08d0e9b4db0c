"""net.ip_reporting: the host knows the guest's address."""

from __future__ import annotations

import re

from lab.suite import Guest, Machine, check


@check("net.ip_reporting", level="smoke")
def test_host_reports_the_address(guest: Guest, machine: Machine) -> None:
    """Catches an address that is missing, out of date, or belongs to another guest."""
    reported = set(machine.addresses())
    assert reported, "the hypervisor knows no address of the running guest"
    own = set(re.findall(r"\binet6? ([0-9a-f.:]+)", guest.check("ip", "address")))
    assert own, "the guest has no address at all"
    assert reported <= own, f"the hypervisor reports {sorted(reported)}, the guest has {sorted(own)}"
