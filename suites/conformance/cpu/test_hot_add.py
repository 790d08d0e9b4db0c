"""cpu.hot_add: a processor that comes while the guest runs becomes usable."""

from __future__ import annotations

from lab.suite import (
    Capability,
    Guest,
    HotplugsCpus,
    Machine,
    Measurements,
    check,
    linux,
    not_applicable,
    processors,
    who_can,
)


@check("cpu.hot_add", needs=(Capability.CPU_HOTPLUG,), spoils=True, timeout_s=400, defect=True)
def test_added_processors_become_usable(guest: Guest, machine: Machine, measured: Measurements) -> None:
    """Catches processors that never appear, cannot be switched on, compute wrong or get no timer."""
    profile = machine.spec.profile
    if profile.max_vcpus <= profile.vcpus:
        not_applicable("the profile has no room for further processors")
    plugs = who_can(machine, HotplugsCpus)
    linux.settle(guest)
    linux.require_tools(guest, "taskset")
    before = processors.online(guest)
    assert len(before) == profile.vcpus, f"started with {profile.vcpus} processors, online are {before}"
    processors.plug(guest, plugs, profile.max_vcpus)
    # Whether the guest switches them on itself is its distribution's choice; that they can be is the feature.
    measured.add("switched_on_by_hand", processors.switch_on(guest), "processors", better="lower")
    online = processors.online(guest)
    assert len(online) == profile.max_vcpus, f"plugged in up to {profile.max_vcpus} processors, online are {online}"
    assert linux.cpus(guest) == profile.max_vcpus, f"/proc/cpuinfo lists {linux.cpus(guest)} of {profile.max_vcpus}"
    told = plugs.vcpus()
    assert told == profile.max_vcpus, f"the guest runs on {profile.max_vcpus} processors, the hypervisor says {told}"
    for number in sorted(set(online) - set(before)):
        processors.assert_works(guest, number)
