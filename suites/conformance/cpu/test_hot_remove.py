"""cpu.hot_remove: a processor goes while the guest runs."""

from __future__ import annotations

from lab.suite import (
    Capability,
    Guest,
    HotplugsCpus,
    Machine,
    check,
    linux,
    not_applicable,
    processors,
    waiting,
    who_can,
)

WITHIN_S = 60.0
FOLDER = "/tmp/lab-pinned"


@check("cpu.hot_remove", needs=(Capability.CPU_HOTPLUG,), spoils=True, timeout_s=500, defect=True)
def test_removed_processor_leaves_its_work_behind(guest: Guest, machine: Machine) -> None:
    """Catches processors that stay, take a process with them, or leave the others damaged."""
    profile = machine.spec.profile
    if profile.max_vcpus <= profile.vcpus:
        not_applicable("the profile has no processors that could be taken away")
    plugs = who_can(machine, HotplugsCpus)
    linux.settle(guest)
    linux.require_tools(guest, "taskset")
    processors.plug(guest, plugs, profile.max_vcpus)
    processors.switch_on(guest)
    last = max(processors.online(guest))
    # Bound to the processor that goes; a kernel that takes it away must let the process run elsewhere.
    loop = f"i=0; while [ -d {FOLDER} ]; do i=$((i + 1)); echo $i >{FOLDER}/count; sleep 0.1; done 2>/dev/null"
    pinned = f"setsid taskset {1 << last:#x} sh -c '{loop}' </dev/null >/dev/null 2>&1 &"
    linux.sh(guest, f"mkdir {FOLDER}; echo 0 >{FOLDER}/count; {pinned}")
    waiting.until(lambda: _count(guest) > 1, what=f"a process to count on processor {last}", timeout_s=WITHIN_S)
    plugs.set_vcpus(profile.vcpus)
    told = plugs.vcpus()
    assert told == profile.vcpus, f"taken away down to {profile.vcpus} processors, the hypervisor says {told}"
    online = processors.online(guest)
    assert len(online) == profile.vcpus, f"taken away down to {profile.vcpus} processors, online are {online}"
    assert last not in processors.present(guest), f"processor {last} was taken away, and the guest still sees it"
    then = _count(guest)
    waiting.until(lambda: _count(guest) > then, what=f"the process of processor {last} to go on", timeout_s=WITHIN_S)
    guest.check("rm", "-rf", FOLDER)
    for number in online:
        processors.assert_works(guest, number)


def _count(guest: Guest) -> int:
    # The process rewrites its file; a read in between finds it empty.
    text = guest.check("cat", f"{FOLDER}/count")
    return int(text) if text else 0
