"""agent.exec: the host runs commands in the guest without any network."""

from __future__ import annotations

import secrets

from lab.suite import Capability, Guest, Machine, RunsInGuest, check, linux, waiting, who_can

ANSWERS_WITHIN_S = 60.0
OUTPUT = 64 << 10  # bytes


def _agent(guest: Guest, machine: Machine) -> RunsInGuest:
    agent = who_can(machine, RunsInGuest)
    linux.settle(guest)
    waiting.until(agent.agent_answers, what="the guest's agent to answer", timeout_s=ANSWERS_WITHIN_S)
    return agent


@check("agent.exec", needs=(Capability.GUEST_COMMANDS,), defect=True)
def test_commands_run_in_this_guest(guest: Guest, machine: Machine) -> None:
    """Catches an agent of another guest, and one that answers without having run anything."""
    agent = _agent(guest, machine)
    boot = agent.agent_run(["cat", "/proc/sys/kernel/random/boot_id"]).out
    assert boot == guest.boot_id, f"the agent's boot is {boot}, the guest's is {guest.boot_id}"
    marker = secrets.token_hex(8)
    agent.agent_run(["sh", "-c", f"echo {marker} >/tmp/lab-agent"])
    assert linux.sh(guest, "cat /tmp/lab-agent; rm /tmp/lab-agent") == marker


@check("agent.exec", needs=(Capability.GUEST_COMMANDS,), defect=True)
def test_input_output_and_status_come_through(guest: Guest, machine: Machine) -> None:
    """Catches lost output, mixed streams, a status that is always well, and words that a shell took apart."""
    agent = _agent(guest, machine)
    result = agent.agent_run(["sh", "-c", "cat; echo said >&2; exit 7"], stdin=b"given\x00\xff")
    assert result.status == 7, f"the command ended with 7, the agent says {result.status}"
    assert result.stdout == b"given\x00\xff", f"given b'given\\x00\\xff', the command wrote {result.stdout!r}"
    assert result.err == "said", f"on standard error stood 'said', the agent gives {result.err!r}"
    words = ["two words", "$HOME", "a;b", "'"]
    said = agent.agent_run(["printf", "%s|", *words]).out
    assert said == "|".join([*words, ""]), f"the words {words} came as {said!r}"
    long = agent.agent_run(["head", "-c", str(OUTPUT), "/dev/zero"]).stdout
    assert long == bytes(OUTPUT), f"wrote {OUTPUT} zero bytes, the agent gives {len(long)} bytes"


@check("agent.exec", needs=(Capability.GUEST_COMMANDS,), cold=True, timeout_s=240, defect=True)
def test_it_needs_no_network(guest: Guest, machine: Machine) -> None:
    """Catches an agent that is reached over the network: it would be of no use when that is broken."""
    agent = _agent(guest, machine)
    nic, gateway = linux.default_route(guest)
    try:
        agent.agent_run(["ip", "link", "set", nic, "down"])
        state = agent.agent_run(["cat", f"/sys/class/net/{nic}/flags"]).out
        assert int(state, 16) & 1 == 0, f"{nic} was switched off and its flags are {state}"  # IFF_UP of netdevice(7)
        assert agent.agent_answers(), "the agent falls silent with the network card"
    finally:
        agent.agent_run(["ip", "link", "set", nic, "up"])
    # Whoever manages the network brings the route back, or nobody does.
    script = f"ip route show | grep -q ^default || ip route add default via {gateway} dev {nic}"
    waiting.until(
        lambda: agent.agent_run(["sh", "-c", script]).status == 0, what="the route to come back", timeout_s=60
    )
    assert guest.check("echo", "here") == "here"
