"""Defects of what hypervisor and guest do together by an agent, and of processors and memory that come and go."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lab.contracts import CommandResult, Machine
from tests.defects.definition import Defect, replace_method
from tests.defects.drivers import answers, instead

NO_AGENT = "a guest without agent cannot be asked"


def _loses_the_status(machine: Machine) -> None:
    driver: Any = machine
    true = driver.agent_run

    def run(*given: Any, **named: Any) -> CommandResult:
        result: CommandResult = true(*given, **named)
        return replace(result, status=0)

    replace_method(machine, "agent_run", run)


DEFECTS = (
    Defect(
        name="agent-dead",
        what="The guest's agent does not run.",
        breaks=("agent.exec", "agent.file_copy", "agent.guest_tools"),
        says="agent",
        # It may start later than SSH does.
        script="""
        for second in $(seq 60); do
            [ -e /run/no-agent ] && break
            killall qemu-ga && touch /run/no-agent || sleep 1
        done
        [ -e /run/no-agent ]
        """,
        collateral={"lifecycle.heartbeat": NO_AGENT},
    ),
    Defect(
        name="agent-loses-the-status",
        what="Every command of the agent seems to end well.",
        breaks=("agent.exec",),
        says="ended with 7, the agent says 0",
        machine=_loses_the_status,
    ),
    Defect(
        name="agent-damages-files",
        what="A file that the agent takes in arrives with another last byte.",
        breaks=("agent.file_copy",),
        says="bytes|content|differ|came back|is not",
        machine=instead("agent_write", lambda true: lambda path, data: true(path, data[:-1] + b"\x00")),
    ),
    Defect(
        name="agent-said-to-live",
        what="The hypervisor says that the agent answers, whatever it does.",
        breaks=("agent.guest_tools",),
        says="agent",
        machine=answers("agent_answers", True),
        collateral={"lifecycle.heartbeat": "a paused guest seems to answer"},
    ),
    Defect(
        name="processors-not-plugged",
        what="The hypervisor takes the order to plug processors in and does nothing.",
        cell="qemu/jeos/q35-smp",
        breaks=("cpu.hot_add", "cpu.hot_remove"),
        says="processor",
        machine=answers("set_vcpus", None),
    ),
    Defect(
        name="plugged-processor-stays-off",
        what="The guest does not turn on a processor that was plugged in.",
        cell="qemu/jeos/q35-smp",
        breaks=(),
        nobody="whether a guest turns them on by itself is its distribution's choice, which is measured and not judged",
        script="rm -f /usr/lib/interop-lab/cpu-online; printf '#!/bin/sh\\n' >/usr/lib/interop-lab/cpu-online",
    ),
    Defect(
        name="memory-not-plugged",
        what="The hypervisor takes the order to plug memory in and does nothing.",
        cell="qemu/jeos/q35-smp",
        breaks=("memory.hot_add",),
        says="memory|MiB",
        machine=answers("attach_memory", None),
    ),
    Defect(
        name="plugged-memory-too-small",
        what="Half of the memory that was asked for is plugged in.",
        cell="qemu/jeos/q35-smp",
        breaks=("memory.hot_add",),
        says="memory|MiB",
        machine=instead("attach_memory", lambda true: lambda name, size_mib: true(name, size_mib // 2)),
    ),
)
