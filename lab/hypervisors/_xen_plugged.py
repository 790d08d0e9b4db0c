"""What came to a machine while it ran: written down in its folder, so that it is there again at the next start."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from lab.hypervisors._xen_config import Disk, Nic
from lab.hypervisors._xen_link import Link, said
from lab.hypervisors._xen_store import Folder, trouble

NAME = re.compile(r"[A-Za-z0-9_-]{1,20}")
SLOTS = tuple(f"xvd{letter}" for letter in "efghijklmno")
LAST = "xvdp"  # of the sixteen that have simple numbers
_LINE = re.compile(r"(disk|nic|memory)-([A-Za-z0-9_-]{1,20}):([A-Za-z0-9:._ -]{1,100})")
_MOST = 64

# Bridges of the lab's own begin so; the rest of the name is a digest.
_BRIDGE_PREFIX = "lab"
_MAKE_BRIDGES = """# make bridges
for bridge; do
  [ -e "/sys/class/net/$bridge" ] || ip link add "$bridge" type bridge forward_delay 0 stp_state 0
  # A domain's card in the dom0 gets its bridge's length of frames; set by hand, it stays whatever joins.
  ip link set "$bridge" mtu 9216 up || exit 1
done
"""
_LEAVE_BRIDGES = """# remove bridges that nobody is on
for bridge; do
  [ ! -d "/sys/class/net/$bridge/brif" ] || [ -n "$(ls "/sys/class/net/$bridge/brif")" ] || ip link delete "$bridge"
done
:
"""


@dataclass(frozen=True)
class Devices:
    """By name: disks at their slots, cards with address and bridge, memory in MiB."""

    slots: tuple[tuple[str, str], ...] = ()
    cards: tuple[tuple[str, str, str], ...] = ()
    memory: tuple[tuple[str, int], ...] = ()

    def disks(self, folder: Folder) -> tuple[Disk, ...]:
        return tuple(Disk(file_of(folder, name), slot) for name, slot in self.slots)

    def nics(self) -> tuple[Nic, ...]:
        return tuple(Nic(mac, bridge) for _, mac, bridge in self.cards)

    def bridges(self) -> tuple[str, ...]:
        """Those that the lab made."""
        return tuple(bridge for _, _, bridge in self.cards if is_ours(bridge))


NONE = Devices()


def file_of(folder: Folder, name: str) -> str:
    """Where the content of a plugged disk is."""
    return folder.file(f"plugged-{name}.raw")


def bridge_of(run: str, network: str) -> str:
    """The bridge of a network that machines of one run share; a name of an interface has at most 15 characters."""
    return _BRIDGE_PREFIX + hashlib.sha256(f"{run}\0{network}".encode()).hexdigest()[:12]


def is_ours(bridge: str) -> bool:
    return re.fullmatch(_BRIDGE_PREFIX + r"[0-9a-f]{12}", bridge) is not None


def parsed(said: str) -> Devices:
    """What the files of a machine's folder `plugged` say, as grep shows them; what is no line of ours is left out."""
    found = [match for match in map(_LINE.fullmatch, said.splitlines()[:_MOST]) if match]
    cards = [(match[2], *match[3].split(" ", 1)) for match in found if match[1] == "nic" and " " in match[3]]
    return Devices(
        slots=tuple((match[2], match[3]) for match in found if match[1] == "disk" and match[3] in SLOTS),
        cards=tuple((name, mac, bridge) for name, mac, bridge in cards),
        memory=tuple((match[2], int(match[3])) for match in found if match[1] == "memory" and match[3].isdigit()),
    )


def make_bridges(link: Link, devices: Devices) -> None:
    """Raises `HostError`."""
    bridges = devices.bridges()
    if not bridges:
        return
    result = link.sh(_MAKE_BRIDGES, *bridges)
    if result.status != 0:
        raise trouble(link, "making a bridge", said(result))


def leave_bridges(link: Link, bridges: tuple[str, ...]) -> None:
    """Remove those on which no machine is any more. Safe to call twice."""
    if bridges:
        link.sh(_LEAVE_BRIDGES, *bridges)
