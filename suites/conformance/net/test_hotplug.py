"""net.hotplug: network cards come and go while the guest runs."""

from __future__ import annotations

from lab.suite import Capability, Guest, HotplugsNics, Machine, check, linux, waiting, who_can

NAME = "hot-nic"
MAC = "52:54:00:1a:b0:01"  # locally administered
WITHIN_S = 30.0


@check("net.hotplug", needs=(Capability.NIC_HOTPLUG,), cold=True, timeout_s=180, defect=True)
def test_card_comes_and_goes(guest: Guest, machine: Machine) -> None:
    """Catches a card that never appears, has another address, does not go away, or takes the first one with it."""
    plugs = who_can(machine, HotplugsNics)
    linux.settle(guest)
    before = {nic.mac for nic in linux.nics(guest)}
    plugs.attach_nic(NAME, MAC)
    try:
        waiting.until(lambda: _has(guest, MAC), what=f"a network card with address {MAC}", timeout_s=WITHIN_S)
    finally:
        plugs.detach_nic(NAME)
    waiting.until(lambda: not _has(guest, MAC), what=f"the network card {MAC} to go away", timeout_s=WITHIN_S)
    assert {nic.mac for nic in linux.nics(guest)} == before, "the cards are not those of before"


def _has(guest: Guest, mac: str) -> bool:
    return any(nic.mac == mac for nic in linux.nics(guest))
