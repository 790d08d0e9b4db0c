"""Doctor: what works on this machine and what does not, each with its remedy."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from lab import hypervisors, locations, process
from lab.errors import ExitCode, LabError, MissingTool
from lab.inventory.models import Host, Inventory
from lab.provisioning import hosts

PROBE_TIMEOUT_S = 20.0
LEAST_FREE_GIB = 6
LEAST_MEMORY_MIB = 1500


class Health(StrEnum):
    """How bad a finding is."""

    GOOD = "good"
    POOR = "poor"  # it works, slower or with less
    BAD = "bad"  # something that an inventory may need does not work


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    health: Health
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class _Tool:
    program: str
    package: str
    serves: str
    version: tuple[str, ...] = ("--version",)
    least: tuple[int, ...] = ()
    optional: bool = False  # most of the lab runs without


TOOLS = (
    _Tool("qemu-system-x86_64", "qemu-system-x86", "hosts of the driver qemu", least=(6, 2)),
    _Tool("qemu-img", "qemu-utils", "disks of every local host"),
    _Tool("swtpm", "swtpm", "profiles with tpm", optional=True),
    _Tool("mformat", "mtools", "profiles with secure_boot", optional=True),
    _Tool("linux.uml", "user-mode-linux", "hosts of the driver uml"),
    _Tool("mmdebstrap", "mmdebstrap", "building images"),
    _Tool("mke2fs", "e2fsprogs", "building images", version=("-V",)),
    _Tool("ssh", "openssh-client", "lab ssh", version=("-V",)),
)


def examine(inventory: Inventory | None) -> list[Finding]:
    """Look at this machine, and at the hosts of an inventory when there is one."""
    return list(_findings(inventory))


def _findings(inventory: Inventory | None) -> Iterator[Finding]:
    for tool in TOOLS:
        yield _tool(tool)
    yield _memory()
    yield _disk(locations.cache())
    yield from _accelerators()
    yield from _networks()
    if inventory is not None:
        for host in inventory.hosts.values():
            yield _host(host)
        for entry in inventory.guests.values():
            missing = entry.missing()
            if missing:
                yield Finding(f"guest {entry.name}", Health.POOR, missing, "its cells are left out of the plan")


def _tool(tool: _Tool) -> Finding:
    remedy = f"apt-get install {tool.package}"
    try:
        path = process.find(tool.program, package=tool.package)
    except MissingTool:
        health = Health.POOR if tool.optional else Health.BAD
        return Finding(tool.program, health, f"not on this machine; needed for {tool.serves}", remedy)
    try:
        answer = process.run([path, *tool.version], timeout_s=PROBE_TIMEOUT_S)
    except LabError as reason:
        return Finding(tool.program, Health.BAD, f"does not answer: {reason.what}", remedy)
    said = (answer.stdout or answer.stderr).strip().splitlines()
    if answer.status != 0 or not said:
        return Finding(tool.program, Health.BAD, f"{tool.program} {' '.join(tool.version)} failed", remedy)
    number = re.search(r"\d+(?:\.\d+)+", said[0])
    if tool.least and (number is None or tuple(map(int, number[0].split("."))) < tool.least):
        least = ".".join(map(str, tool.least))
        return Finding(tool.program, Health.BAD, f"{said[0][:100]}; {least} or newer is needed", remedy)
    return Finding(tool.program, Health.GOOD, number[0] if number else said[0][:100])


def _memory() -> Finding:
    import psutil

    memory = psutil.virtual_memory()
    found = f"{memory.available >> 20} MiB free of {memory.total >> 20}, {len(os.sched_getaffinity(0))} processors"
    if memory.available >> 20 < LEAST_MEMORY_MIB:
        return Finding("memory", Health.POOR, found, "fewer cells run at once")
    return Finding("memory", Health.GOOD, found)


def _disk(path: Path) -> Finding:
    free_gib = shutil.disk_usage(path).free / (1 << 30)
    found = f"{free_gib:.1f} GiB free below {path}"
    if free_gib < LEAST_FREE_GIB:
        return Finding("disk", Health.BAD, found, f"free {LEAST_FREE_GIB} GiB or point XDG_CACHE_HOME at a larger disk")
    return Finding("disk", Health.GOOD, found)


def _accelerators() -> Iterator[Finding]:
    """KVM counts when a guest has booted under it, not when its device opens."""
    for name in hypervisors.names():
        prove: Callable[[], tuple[bool, str]] | None = getattr(hypervisors.load(name), "prove_accelerator", None)
        if prove is None:
            continue
        try:
            proved, sentence = prove()
        except LabError as reason:
            yield Finding(f"accelerator of {name}", Health.BAD, reason.what, reason.hint)
            continue
        health = Health.GOOD if proved else Health.POOR
        yield Finding(f"accelerator of {name}", health, sentence, "" if proved else "guests run in software emulation")


def _networks() -> Iterator[Finding]:
    """Whether each driver may make the networks of its machines, tried and not guessed."""
    for name in hypervisors.names():
        prove: Callable[[], str] | None = getattr(hypervisors.load(name), "prove_network", None)
        if prove is None:
            continue
        try:
            yield Finding(f"network of {name}", Health.GOOD, prove())
        except LabError as reason:
            yield Finding(f"network of {name}", Health.BAD, reason.what, reason.hint)


def _host(host: Host) -> Finding:
    subject = f"host {host.name}"
    if hosts.made_from(host) and not hosts.is_there(host):
        return _made_host(subject, host)
    try:
        with hosts.connect(host) as hypervisor:
            facts = hypervisor.facts()
            limits = hypervisor.limits()
    except LabError as reason:
        return Finding(subject, Health.BAD, reason.what, reason.hint)
    accelerator = f", {facts.accelerator}" if facts.accelerator else ""
    cannot = f"; cannot: {', '.join(sorted(limits))}" if limits else ""
    return Finding(subject, Health.GOOD, f"{facts.product} {facts.version}{accelerator}, {facts.realness}{cannot}")


def _made_host(subject: str, host: Host) -> Finding:
    """Of a host that the lab makes: looking whether it can must not take the minutes that making it may."""
    problem = hosts.lacks(host)
    if problem is not None:
        remedy = f"{problem.hint}; its cells are left out of the plan" if problem.hint else "its cells are left out"
        return Finding(subject, Health.POOR, problem.what, remedy)
    doubt = hosts.doubt_about(host)
    if doubt:
        remedy = "take what its guests show as a hint, or leave it out with --exclude"
        return Finding(subject, Health.POOR, f"can be made here: {hosts.state_of(host)}; {doubt}", remedy)
    return Finding(subject, Health.GOOD, f"can be made here: {hosts.state_of(host)}")


def as_json(findings: Sequence[Finding]) -> list[dict[str, str]]:
    """One object for each finding."""
    return [{key: str(value) for key, value in asdict(finding).items()} for finding in findings]


def exit_code(findings: Sequence[Finding]) -> ExitCode:
    """3 when something is bad."""
    bad = any(finding.health is Health.BAD for finding in findings)
    return ExitCode.LAB_AT_FAULT if bad else ExitCode.AS_EXPECTED
