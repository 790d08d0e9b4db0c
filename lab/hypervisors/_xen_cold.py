"""Cold migration of a Xen machine: off or asleep, it is carried to a host that its own was introduced to.

It is what a PV guest of a Xen without shadow paging has instead of live migration: save, carry, restore.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from lab import log
from lab.contracts import MachineState, Migration
from lab.errors import HypervisorRefused, LabError
from lab.hypervisors import _xen_arrival as arrival
from lab.hypervisors import _xen_power as power
from lab.hypervisors import _xen_snapshots as snapshots
from lab.hypervisors._xen_move import Moved
from lab.hypervisors._xen_power import Machine
from lab.hypervisors._xen_sites import Site
from lab.ssh._pump import PeerGone

_log = log.get(__name__)


def destinations(machine: Machine, site: Site) -> Sequence[str]:
    """Where it can be brought to; nowhere while it runs."""
    return tuple(sorted(_places(machine, site))) if power.look(machine).state is MachineState.STOPPED else ()


def migrate(machine: Machine, site: Site, destination: str, *, timeout_s: float) -> Moved:
    """Carry it there. Raises `HypervisorRefused`; it then is where it was, and nothing of it there."""
    began = time.monotonic()
    found = power.look(machine)
    if found.state is not MachineState.STOPPED:
        raise HypervisorRefused(
            f"{machine.name} is {found.state}", hint="stop it, or save its state, and carry it then"
        )
    places = _places(machine, site)
    if destination not in places:
        told = ", ".join(sorted(places)) or "nowhere, no host is known that could have it"
        raise HypervisorRefused(f"{machine.name} cannot be carried to {destination!r} (it can be carried to {told})")
    peer = places[destination]
    try:
        there, copied = arrival.carry(machine, peer, began + timeout_s)
    except (LabError, PeerGone, EOFError) as reason:
        raise HypervisorRefused(f"{machine.name} could not be carried to {peer.name} and stays: {reason}") from reason
    arrival.settle(machine, there, running=False)
    seconds = time.monotonic() - began
    _log.info("machine.carried", machine=machine.name, to=peer.name, bytes=copied)
    return Moved(there, peer, Migration(seconds, seconds * 1000, copied))


def _places(machine: Machine, site: Site) -> Mapping[str, Site]:
    places = {name: peer for name, peer in site.peers.items() if site.why_not_carried(peer) is None}
    if any(peer.folder != site.folder for peer in places.values()) and snapshots.names(machine):
        # The memory of a snapshot says where its disks are.
        return {name: peer for name, peer in places.items() if peer.folder == site.folder}
    return places
