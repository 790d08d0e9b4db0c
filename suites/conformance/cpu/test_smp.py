"""cpu.smp: all configured processors are online and work."""

from __future__ import annotations

import hashlib

from lab.suite import Guest, Machine, Measurements, check, linux, not_applicable, processors

WORK_MIB = 1
ROUNDS = 2
LINE = "interop-lab\n"


@check("cpu.smp", level="smoke", defect=True)
def test_all_processors_are_online(guest: Guest, machine: Machine) -> None:
    """Catches processors that the guest does not see or could not start."""
    online, asked = linux.cpus(guest), machine.spec.profile.vcpus
    assert online == asked, f"the profile asks for {asked} processors, {online} are online"


@check("cpu.smp", defect=True)
def test_every_processor_computes_right(guest: Guest, machine: Machine, measured: Measurements) -> None:
    """Catches processors that give wrong results: emulators and nested hosts have corrupted vector registers."""
    linux.require_tools(guest, "taskset")
    size = WORK_MIB << 20
    content = (LINE * (size // len(LINE) + 1)).encode()[:size]
    expected = hashlib.sha256(content).hexdigest()
    loop = f"for round in $(seq {ROUNDS}); do yes interop-lab | head -c {size} | sha256sum; done"
    start = linux.uptime_s(guest)
    answers: dict[int, list[str]] = {}
    for cpu in range(machine.spec.profile.vcpus):
        answer = guest.check("taskset", hex(1 << cpu), "sh", "-c", loop, timeout_s=110)
        answers[cpu] = [line.split()[0] for line in answer.splitlines()]
    measured.add(
        "sha256_time", (linux.uptime_s(guest) - start) / (ROUNDS * len(answers) * WORK_MIB), "s/MiB", better="lower"
    )
    wrong = {cpu: found for cpu, found in answers.items() if found != [expected] * ROUNDS}
    assert not wrong, f"wrong sums of known data, by processor: {wrong}; expected {expected}"


@check("cpu.smp")
def test_every_processor_takes_timer_interrupts(guest: Guest, machine: Machine) -> None:
    """Catches a processor that is online and never gets a tick."""
    if machine.spec.profile.vcpus < 2:
        not_applicable("the profile has one processor")
    before = processors.ticks(guest)
    for cpu in range(machine.spec.profile.vcpus):
        guest.check("taskset", hex(1 << cpu), "sh", "-c", "yes | head -c 4194304 >/dev/null")
    still = [cpu for cpu, ticks in processors.ticks(guest).items() if ticks <= before.get(cpu, 0)]
    assert not still, f"no timer interrupt on processors {still} while they worked"
