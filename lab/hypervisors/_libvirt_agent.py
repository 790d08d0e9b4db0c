"""What the agent in the guest of a libvirt machine does for us: programs, files, addresses, file systems at rest.

Libvirt holds the agent's line and carries one answer of at most 4 MiB (REMOTE_STRING_MAX), so a program's output is
bounded in the guest already. Of what the guest says nothing is believed: shapes are checked, sizes bounded.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from lab import waiting
from lab.contracts import CommandResult
from lab.errors import CommandTimedOut, GuestUnreachable, HypervisorRefused, NotSupported, WaitedTooLong
from lab.hypervisors import _guest_agent as agents
from lab.hypervisors import _libvirt_power as power
from lab.hypervisors import _libvirt_sdk
from lab.hypervisors._guest_agent import AgentRefused, Ask
from lab.hypervisors._libvirt_link import Kind, LibvirtRefused
from lab.hypervisors._libvirt_power import Machine

ANSWER_S = 20
_FILE_S = 300
_LONG = frozenset({"guest-file-read", "guest-file-write", "guest-fsfreeze-freeze", "guest-fsfreeze-thaw"})
_BOUND = 1 << 20  # of a program's output stream
# What does not fit into the line's socket at once (net.core.wmem_default, 208 KiB) libvirt 9.0 never writes to its end,
# and no agent of that machine answers any more: seen with 192 KiB in base64.
_LARGEST_ORDER = 160 << 10
_CHUNK = 64 << 10
_SILENT = (Kind.AGENT_SILENT, Kind.TIMED_OUT)
# Both streams through a bound that goes on reading, so that the program does not notice; its status comes last.
_BOUNDED = """
exec 6>&1 7>&2
bound() { head -c "$n"; cat >/dev/null; }
n=$1; shift
s=$({ { { "$@" 3>&- 5>&- 6>&- 7>&-; echo $? >&3; } 2>&1 >&5 | bound >&7; } 5>&1 | bound >&6; } 3>&1)
exit "$s"
"""
_KILL = """
end() { for c in $(cat /proc/$1/task/*/children 2>/dev/null); do end $c; done; kill -KILL $1 2>/dev/null; }
end "$1"
"""


def answers(machine: Machine) -> bool:
    """Whether an agent answers now; waits a little for it."""
    try:
        _command(machine, "guest-ping", timeout_s=ANSWER_S // 4)
    except (GuestUnreachable, AgentRefused, HypervisorRefused):
        return False
    return True


def run(machine: Machine, argv: Sequence[str], stdin: bytes, timeout_s: float) -> CommandResult:
    """Raises `GuestUnreachable`, `CommandTimedOut`; a program that is not there ends with 127, as in a shell."""
    started = time.monotonic()
    ask = _line_to(machine)
    try:
        pid = agents.begin(ask, ("/bin/sh", "-c", _BOUNDED, "sh", str(_BOUND + 1), *argv), stdin)
    except AgentRefused as reason:
        if not agents.is_no_program(reason):
            raise
        try:
            pid = agents.begin(ask, argv, stdin)  # a guest without a shell; its output is not bounded there
        except AgentRefused as again:
            if not agents.is_no_program(again):
                raise
            return CommandResult(tuple(argv), 127, b"", again.what.encode(), time.monotonic() - started)
    left_s = max(0.0, timeout_s - (time.monotonic() - started))
    try:
        ended = lambda: agents.ended(ask, pid, limit_bytes=agents.ANSWER_BYTES)  # noqa: E731
        told = waiting.until(ended, what=argv[0], timeout_s=left_s)
    except WaitedTooLong:
        agents.begin(ask, ("/bin/sh", "-c", _KILL, "sh", str(pid)), b"")
        raise CommandTimedOut(f"{argv[0]!r} did not end within {timeout_s:.0f} s") from None
    out, cut_out = agents.stream(told, "out", _BOUND)
    err, cut_err = agents.stream(told, "err", _BOUND)
    return CommandResult(tuple(argv), agents.status(told), out, err, time.monotonic() - started, cut_out or cut_err)


def read(machine: Machine, path: PurePath, limit_bytes: int) -> bytes:
    """Raises `GuestCommandFailed` when it cannot be read or is larger than the limit, `GuestUnreachable`."""
    return agents.read(_line_to(machine), path, limit_bytes, chunk_bytes=_CHUNK)


def write(machine: Machine, path: PurePath, data: bytes) -> None:
    """Raises `GuestCommandFailed` when it cannot be written, `GuestUnreachable`."""
    agents.write(_line_to(machine), path, data, chunk_bytes=_CHUNK)


def addresses(machine: Machine) -> Mapping[str, Sequence[str]]:
    """IP addresses by MAC address, without the loopback card; what is neither is left out."""
    return agents.addresses(_line_to(machine))


def freeze(machine: Machine) -> int:
    """How many file systems came to rest. Raises `HypervisorRefused`, `NotSupported`, `GuestUnreachable`."""
    return agents.freeze(_line_to(machine))


def thaw(machine: Machine) -> int:
    """How many go on; none when none was at rest."""
    return agents.thaw(_line_to(machine))


def _line_to(machine: Machine) -> Ask:
    def ask(name: str, arguments: Mapping[str, object] | None = None, *, limit_bytes: int = agents.ANSWER_BYTES) -> Any:
        del limit_bytes  # libvirt bounds each answer itself
        return _command(machine, name, arguments, timeout_s=_FILE_S if name in _LONG else ANSWER_S)

    return ask


def _command(
    machine: Machine, name: str, arguments: Mapping[str, object] | None = None, *, timeout_s: int = ANSWER_S
) -> Any:
    """What the agent returns. Raises `AgentRefused` with its words, `GuestUnreachable`, `LibvirtRefused`."""
    qemu = _libvirt_sdk.load_qemu()
    line = json.dumps({"execute": name, **({"arguments": dict(arguments)} if arguments else {})})
    if len(line) > _LARGEST_ORDER:
        raise NotSupported(
            f"libvirt carries at most {_LARGEST_ORDER >> 10} KiB to an agent at once, not {len(line) >> 10}"
        )
    try:
        answer = power.on_running(
            machine,
            f"{name} of the agent",
            lambda domain: qemu.qemuAgentCommand(domain, line, timeout_s, 0),
            limit_s=timeout_s + 30.0,
            again=name == "guest-ping",
        )
    except LibvirtRefused as reason:
        if reason.kind in _SILENT or "agent is not connected" in reason.words:
            raise GuestUnreachable(
                f"no agent answers in {machine.name}",
                hint="the guest must run qemu-ga; it starts some seconds after SSH",
            ) from reason
        # libvirt 9.0 tells an agent's error as its own internal one, "unable to execute QEMU agent command".
        if reason.kind is Kind.AGENT_SAID or "agent command" in reason.words:
            raise AgentRefused(f"the agent of {machine.name} refused {name}: {reason.words}") from reason
        raise
    try:
        told = json.loads(answer)
    except (ValueError, RecursionError):
        raise agents.not_json() from None
    if not isinstance(told, dict) or "return" not in told:
        raise agents.not_json()
    return told["return"]
