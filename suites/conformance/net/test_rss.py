"""net.rss: received packets are spread over several queues."""

from __future__ import annotations

import re
import socket

from lab.suite import Guest, Machine, check, linux, not_applicable, unsupported

FLOWS = 24  # with two queues that share them evenly, once in eight million runs one queue gets them all
SSH = 22
# Models that have a queue for each processor by themselves; with virtio the host decides how many there are.
MANY_QUEUES = ("vmxnet3", "netvsc")


@check("net.rss", defect=True)
def test_card_has_a_queue_for_each_processor(guest: Guest, machine: Machine) -> None:
    """Catches a card that serves many processors through one queue."""
    vcpus = machine.spec.profile.vcpus
    if vcpus < 2:
        not_applicable("the profile has one processor")
    nic = linux.first_nic(guest)
    if nic.rx_queues == 1 and machine.spec.profile.nic not in MANY_QUEUES:
        unsupported(f"{nic.name} was given one receive queue")
    assert nic.rx_queues >= min(vcpus, 4), f"{nic.name} has {nic.rx_queues} receive queues for {vcpus} processors"


@check("net.rss", timeout_s=240)
def test_connections_are_spread_over_the_queues(guest: Guest, machine: Machine) -> None:
    """Catches queues that are there and stay empty: one processor then still does all the work."""
    if machine.spec.profile.vcpus < 2:
        not_applicable("the profile has one processor")
    linux.require_tools(guest, "ethtool")
    nic = linux.first_nic(guest)
    if nic.rx_queues == 1:
        unsupported(f"{nic.name} was given one receive queue")
    before = _received(guest, nic.name)
    if len(before) < nic.rx_queues:
        unsupported(f"the driver of {nic.name} does not count what each of its queues receives")
    endpoint = machine.endpoint(SSH)
    for _ in range(FLOWS):
        # Each comes from another port, which is what a card tells connections apart by.
        with socket.create_connection((endpoint.host, endpoint.port), timeout=30) as line:
            greeting = line.recv(4)
            assert greeting == b"SSH-", f"the guest's SSH server greets with {greeting!r}"
    grown = [now - then for then, now in zip(before, _received(guest, nic.name), strict=True)]
    assert sum(grown) >= FLOWS, f"{FLOWS} connections came, the queues of {nic.name} count {sum(grown)} packets"
    busy = [number for number, packets in enumerate(grown) if packets]
    assert len(busy) >= 2, f"{FLOWS} connections all went to queue {busy[0]} of {nic.name}; the queues took {grown}"


def _received(guest: Guest, nic: str) -> list[int]:
    """Packets that each queue received so far, in the words of the drivers that count them."""
    told = guest.check("ethtool", "-S", nic)
    virtio = re.findall(r"^ *rx_queue_\d+_packets: (\d+)$", told, re.MULTILINE)
    vmxnet3 = re.findall(r"^ *ucast pkts rx: (\d+)$", told, re.MULTILINE)
    return [int(count) for count in virtio or vmxnet3]
