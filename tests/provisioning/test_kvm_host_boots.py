"""A KVM host for real: restored from the frozen copy, which is made when there is none; a guest of libvirt's in it.

KVM on emulated virtualisation is slow, and too few rounds of its soak were done, so these run where
INTEROP_LAB_KVM_HOST is set.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from benchmarks import kvm_soak
from lab.contracts import Hypervisor, Realness
from lab.hypervisors import libvirt
from lab.inventory.models import Host
from lab.provisioning import hosts

pytestmark = [
    pytest.mark.minutes,
    # Freezing a host, or a guest's boot, may take minutes on a busy machine; cut off, that looks like a hang.
    pytest.mark.timeout(1500),
    pytest.mark.skipif(
        not os.environ.get("INTEROP_LAB_KVM_HOST"), reason="not trusted yet: set INTEROP_LAB_KVM_HOST to try it"
    ),
]
HOST = Host("kvm-of-tests", "libvirt", libvirt.Settings(made_from="kvm-host"), Realness.EMULATED)


@pytest.fixture(scope="module")
def hypervisor() -> Iterator[Hypervisor]:
    with hosts.connect(HOST) as hypervisor:
        yield hypervisor


def test_it_offers_kvm_and_says_that_its_processor_is_emulated(hypervisor: Hypervisor) -> None:
    facts = hypervisor.facts()

    assert (facts.product, facts.accelerator, facts.realness) == ("libvirt", "kvm", Realness.EMULATED)


def test_a_guest_runs_under_kvm_and_calculates_right(hypervisor: Hypervisor) -> None:
    found: dict[str, object] = {}

    kvm_soak.in_a_guest(hypervisor, found)

    assert (found["wrong"], found["right"]) == ("", 3 * kvm_soak.TIMES)
    assert not hypervisor.machines()
