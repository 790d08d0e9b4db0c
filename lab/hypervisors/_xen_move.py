"""Live migration of a Xen machine: to another domain of its host, or to another host with its disks.

Within a host `xl migrate` speaks to its own `migrate-receive` through a pipe. Between hosts the lab carries the stream
(`_xen_handshake`) over the two connections that are there, so the hosts need not know each other.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

from lab import log, waiting
from lab.contracts import MachineState, Migration
from lab.errors import HostError, HypervisorRefused, LabError, NotSupported
from lab.hypervisors import _xen_arrival as arrival
from lab.hypervisors import _xen_power as power
from lab.hypervisors._xen_config import Kind
from lab.hypervisors._xen_handshake import Handshake
from lab.hypervisors._xen_link import said
from lab.hypervisors._xen_power import Machine
from lab.hypervisors._xen_sites import Site
from lab.ssh._pump import PeerGone

_AGAIN = ", second domain"
_BACK_S = 60.0  # for xl to let the guest go on after a failure
_log = log.get(__name__)

_PLACE = '# look where a machine is\nread -r place 2>/dev/null <"$1/place" && echo "$place"; :'
# The stream goes through a dd that counts it and, ended in time, makes xl give up and let the guest go on.
# `guest has suspended` is of libxl_dom_suspend.c, at the level of -vvv; the rest is for people.
_WITHIN = """# move a domain on its host
counted=$2/.carried stream=$2/.stream
rm -f "$stream"
mkfifo -m 600 "$stream"
# Nobody but the receiver holds what it answers on: when it ends, the sender reads so.
receive="exec 3<&0; timeout $3 dd bs=65536 2>$counted >$stream <&3 3<&- & exec xl migrate-receive <$stream 3<&-"
{ xl -vvv migrate -s '' "$1" "$receive" </dev/null 2>&1; echo "ended $?"; } |
  grep --line-buffered -E 'guest has suspended|Target reports success|rror|ailed|anic|^ended [0-9]+$' |
  while IFS= read -r line; do
    read -r up _ </proc/uptime
    echo "$up $line"
  done
echo "carried $(cat "$counted")"
rm -f "$counted" "$stream"
"""
_NOTE = """# note where a machine is
[ -z "$2" ] || echo "$2" >"$1/place"
[ -n "$2" ] || rm -f "$1/place"
"""
_SEND = """# send a domain
exec 7<&0 8>&1 </dev/null >&2
exec xl -vvv migrate -s '' "$1" 'cat <&7 8>&- & exec cat >&8 7<&-'
"""


@dataclass(frozen=True)
class Moved:
    """A machine where it is now, and what the way there took."""

    machine: Machine
    site: Site
    took: Migration


def place(machine: Machine) -> str:
    """Where the machine is."""
    second = machine.link.sh(_PLACE, machine.folder.path).out.strip() == "second"
    return machine.link.host + (_AGAIN if second else "")


def destinations(machine: Machine, site: Site) -> Sequence[str]:
    """Where it can be brought to; nowhere when it does not run or its kind does not move."""
    if why_not(machine) is not None or power.look(machine).state is not MachineState.RUNNING:
        return ()
    host = site.name
    other = host if place(machine) != host else host + _AGAIN
    return (other, *sorted(site.reachable()))


def why_not(machine: Machine) -> str | None:
    """Why this machine cannot move while it runs, or `None`."""
    return machine.toolstack.moves_no_pv() if machine.kind is Kind.PV else None


def migrate(machine: Machine, site: Site, destination: str, *, with_storage: bool, timeout_s: float) -> Moved:
    """Move and go on there. Raises `HypervisorRefused`, `NotSupported`; the machine then runs on where it was."""
    lacks = why_not(machine)
    if lacks is not None:
        raise NotSupported(lacks)
    known = destinations(machine, site)
    if destination not in known:
        told = ", ".join(known) or "nowhere, it does not run"
        raise HypervisorRefused(f"{machine.name} cannot be brought to {destination!r} (it can be brought to {told})")
    peer = site.reachable().get(destination)
    if peer is None:
        if with_storage:
            raise NotSupported(f"both places are on {site.name}, and a disk has nowhere else to go there")
        return Moved(machine, site, _within(machine, destination, timeout_s))
    if not with_storage:
        raise NotSupported(f"{site.name} and {peer.name} share no storage that the lab knows of")
    return _across(machine, site, peer, timeout_s)


# ---------------------------------------------------------------------------------------------------------
# To another domain of the same host


def _within(machine: Machine, destination: str, timeout_s: float) -> Migration:
    domain, began = power.require_up(machine), time.monotonic()
    words = (str(domain.domid), machine.folder.path, f"{timeout_s:.0f}")
    result = machine.link.sh(_WITHIN, *words, timeout_s=timeout_s + _BACK_S)
    lines = result.out.splitlines()
    seconds = time.monotonic() - began
    if not any(line.endswith(" ended 0") for line in lines):
        _require_back(machine)
        told = " | ".join(line.partition(" ")[2] for line in lines if "guest has suspended" not in line)
        limit = f" within {timeout_s:.0f} s" if seconds > timeout_s else ""
        raise HypervisorRefused(f"xl could not migrate {machine.name}{limit}: {told[-600:] or said(result)}")
    second = "second" if destination.endswith(_AGAIN) else ""
    machine.link.sh(_NOTE, machine.folder.path, second)
    counted = re.search(r"^carried .*?(\d{1,15}) bytes", result.out, re.MULTILINE | re.DOTALL)
    still = _between(lines, "guest has suspended", "Target reports success")
    took = Migration(seconds, min(still or seconds, seconds) * 1000, int(counted[1]) if counted else 0)
    _log.info("machine.migrated", machine=machine.name, to=destination, downtime_ms=round(took.downtime_ms))
    return took


def _between(lines: Sequence[str], first: str, last: str) -> float:
    """Seconds between two lines that begin with the dom0's uptime; 0 when one of them is not there."""
    times: dict[str, float] = {}
    for line in lines:
        stamp, _, told = line.partition(" ")
        for wanted in (first, last):
            if wanted in told and re.fullmatch(r"\d{1,9}\.\d\d", stamp):
                times.setdefault(wanted, float(stamp))
    return max(0.0, times[last] - times[first]) if len(times) == 2 else 0.0


def _require_back(machine: Machine) -> None:
    """Raises `HostError` when a failed migration left the guest standing still, which xl has no command to mend."""
    found = power.look(machine)
    if found.domain is not None and found.domain.flags[3] == "s":
        raise HostError(
            f"{machine.link.host}: xl left {machine.name} suspended after a migration that failed",
            hint="start it anew with stop and start; its memory is lost",
        )


# ---------------------------------------------------------------------------------------------------------
# To another host


def _across(machine: Machine, site: Site, peer: Site, timeout_s: float) -> Moved:
    began = time.monotonic()
    deadline = began + timeout_s
    domain = power.require_up(machine)
    there = arrival.prepare(machine, peer)
    try:
        handshake = Handshake(
            sender=machine.link.program(("/bin/sh", "-c", _SEND, "sh", str(domain.domid)), timeout_s=timeout_s),
            receiver=peer.link.program(("xl", "migrate-receive"), timeout_s=timeout_s),
            deadline=deadline,
        )
        copied: list[int] = []
        try:
            status = handshake.run(lambda: copied.append(arrival.bring_disks(machine, there, deadline)))
        finally:
            handshake.receiver.close()
            handshake.sender.close()
        if status != 0 or not copied:
            raise HypervisorRefused(f"xl migrate ended with {status}: {handshake.complaints()}")
    except (LabError, PeerGone, EOFError) as reason:
        _stay(machine, there)
        raise HypervisorRefused(f"{machine.name} could not be brought to {peer.name} and stays: {reason}") from reason
    except BaseException:
        _stay(machine, there)
        raise
    ended = time.monotonic()
    still = ended - handshake.sent.suspended if handshake.sent.suspended else ended - began
    arrival.settle(machine, there)
    took = Migration(time.monotonic() - began, still * 1000, handshake.carried + sum(copied))
    _log.info("machine.migrated", machine=machine.name, to=peer.name, downtime_ms=round(took.downtime_ms))
    return Moved(there, peer, took)


def _stay(machine: Machine, there: Machine) -> None:
    """Nothing of the machine is left at the other host; here it goes on, which xl sees to when the stream breaks."""
    try:
        arrival.clear(there)
    except LabError as reason:
        _log.warning("machine.left-behind", machine=machine.name, host=there.link.host, why=reason.what)
    waiting.until(
        lambda: power.require_up(machine).flags[3] != "s",
        what=f"xl to let {machine.name} go on after a migration that failed",
        timeout_s=_BACK_S,
    )
