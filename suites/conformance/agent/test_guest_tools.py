"""agent.guest_tools: the hypervisor's own agent runs in the guest, and the host knows whether it does."""

from __future__ import annotations

from lab.suite import Capability, Guest, Machine, RunsInGuest, check, linux, unsupported, waiting, who_can

# What the agents of hypervisors are called (the kernel keeps fifteen letters of a program's name).
AGENTS = ("qemu-ga", "vmtoolsd", "hv_kvp_daemon", "hypervkvpd", "xe-daemon", "xe-guest-agent")
ANSWERS_WITHIN_S = 60.0

_PROCESSES = r"""
for process in /proc/[0-9]*; do
  read -r name <"$process/comm" && echo "${process#/proc/} $name"
done 2>/dev/null
"""


@check("agent.guest_tools", needs=(Capability.GUEST_COMMANDS,), timeout_s=240, defect=True)
def test_host_knows_whether_the_agent_lives(guest: Guest, machine: Machine) -> None:
    """Catches an agent that is installed and does not run, and a host that believes in one that hangs."""
    agent = who_can(machine, RunsInGuest)
    linux.settle(guest)
    pids = [line.split()[0] for line in linux.sh(guest, _PROCESSES).splitlines() if line.split()[1] in AGENTS]
    if not pids:
        assert not agent.agent_answers(), "no agent runs in the guest, and the host says that it answers"
        installed = linux.sh(guest, f"for name in {' '.join(AGENTS)}; do command -v $name || :; done").split()
        assert not installed, f"the agent {', '.join(installed)} is installed in the guest and does not run"
        unsupported("the guest has none of the agents " + ", ".join(AGENTS))
    waiting.until(agent.agent_answers, what="the guest's agent to answer", timeout_s=ANSWERS_WITHIN_S)
    guest.check("kill", "-STOP", *pids)
    try:
        assert not agent.agent_answers(), "the agent was stopped, and the host says that it answers"
    finally:
        guest.check("kill", "-CONT", *pids)
    waiting.until(agent.agent_answers, what="the agent to answer again", timeout_s=ANSWERS_WITHIN_S)
