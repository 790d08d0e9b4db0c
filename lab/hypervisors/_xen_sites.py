"""Where a Xen machine can be: the host it is on, and others that were introduced to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lab.hypervisors._xen_link import Link
from lab.hypervisors._xen_toolstack import Toolstack


@dataclass(frozen=True)
class Site:
    """One dom0 that is logged in to, as a place for machines."""

    link: Link
    toolstack: Toolstack
    folder: str  # the lab's own there
    logs: str  # of xl and xenconsoled
    overlays: bool
    peers: dict[str, Site] = field(default_factory=dict, compare=False, repr=False)  # by name

    @property
    def name(self) -> str:
        return self.link.host

    def meet(self, other: Site) -> None:
        """Let machines move between the two from now on."""
        self.peers[other.name] = other
        other.peers[self.name] = self

    def reachable(self) -> Mapping[str, Site]:
        """Those of its peers that a machine of this site would be the same machine on."""
        return {name: peer for name, peer in self.peers.items() if self.why_not(peer) is None}

    def why_not(self, other: Site) -> str | None:
        """Why no machine can go there while it runs; `None` when one can."""
        # xl.cfg(5) names files, and the domain takes its configuration along.
        if (self.folder, self.overlays) != (other.folder, other.overlays):
            return f"{self.name} and {other.name} keep disks in different ways or folders"
        if self.link.dom0.bridge != other.link.dom0.bridge:
            return f"{self.name} and {other.name} call their bridges differently"
        return self.why_not_carried(other)

    def why_not_carried(self, other: Site) -> str | None:
        """Why no machine can go there while it does not run; `None` when one can."""
        if self.overlays != other.overlays:
            return f"{self.name} and {other.name} keep disks in different ways"
        if (self.link.dom0.maker is None) != (other.link.dom0.maker is None):
            return f"guests of {self.name} and of {other.name} are reached in different ways"
        # docs/features/migration.pandoc: to the same release or a later one.
        if self.toolstack.version > other.toolstack.version:
            return f"{other.name} has an older Xen than {self.name}, and a domain moves to newer ones only"
        return None
