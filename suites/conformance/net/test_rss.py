"""net.rss: received packets are spread over several queues."""

from __future__ import annotations

from lab.suite import Guest, Machine, check, linux, not_applicable, unsupported

# Models that have a queue for each processor by themselves; with virtio the host decides how many there are.
MANY_QUEUES = ("vmxnet3", "netvsc")


@check("net.rss")
def test_card_has_a_queue_for_each_processor(guest: Guest, machine: Machine) -> None:
    """Catches a card that serves many processors through one queue."""
    vcpus = machine.spec.profile.vcpus
    if vcpus < 2:
        not_applicable("the profile has one processor")
    nic = linux.first_nic(guest)
    if nic.rx_queues == 1 and machine.spec.profile.nic not in MANY_QUEUES:
        unsupported(f"{nic.name} was given one receive queue")
    assert nic.rx_queues >= min(vcpus, 4), f"{nic.name} has {nic.rx_queues} receive queues for {vcpus} processors"
