"""Capabilities: each a Protocol and a member of `Capability`; a driver has one when the methods are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from lab.contracts.behaviour import Machine
from lab.contracts.values import Capability, MachineSpec


@runtime_checkable
class Snapshots(Protocol):
    """Of a machine: what it was can be had back."""

    def snapshot(self, name: str) -> None:
        """Keep disk, and memory where the hypervisor can; the machine goes on as it was."""

    def restore(self, name: str) -> None:
        """Go back to a kept state; connections into the guest are lost. Raises `HypervisorRefused`."""

    def delete_snapshot(self, name: str) -> None: ...

    def snapshots(self) -> Sequence[str]: ...

    def snapshots_hold_memory(self) -> bool:
        """Whether a restored machine goes on where it was (true) or boots from the kept disk (false)."""


@runtime_checkable
class ClonesWarm(Protocol):
    """Of a hypervisor: a machine that booted once is saved, later ones start from a copy."""

    def warm_key(self, spec: MachineSpec) -> str:
        """Digest of all that a saved machine depends on: image, profile, driver, hypervisor version, CPU model."""

    def has_warm(self, key: str) -> bool: ...

    def save_warm(self, key: str, machine: Machine, identity: bytes) -> None:
        """Save a running machine under `key`; it goes on as it was. `identity` is kept beside the copy.

        Two processes that save the same key at once both succeed, one copy stays. A save that is
        interrupted leaves nothing that `has_warm` would believe.
        """

    def warm_identity(self, key: str) -> bytes:
        """What `save_warm` was given."""

    def clone_warm(self, key: str, spec: MachineSpec) -> Machine:
        """Make a running machine from the saved one. Raises `HypervisorRefused` when the copy is unusable."""

    def forget_warm(self, key: str) -> None: ...


@runtime_checkable
class Pauses(Protocol):
    """Of a machine: its processors stand still and go on."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...


@runtime_checkable
class InjectsNmi(Protocol):
    """Of a machine: a non-maskable interrupt to every processor."""

    def inject_nmi(self) -> None: ...


@runtime_checkable
class TakesScreenshots(Protocol):
    """Of a machine: what its display shows."""

    def screenshot(self) -> bytes:
        """A PNG file."""


@runtime_checkable
class Balloons(Protocol):
    """Of a machine: the host takes memory from the running guest and gives it back."""

    def set_balloon(self, memory_mib: int) -> None:
        """Ask the guest to keep that much; returns at once."""

    def balloon_mib(self) -> int:
        """How much the guest has now, as the hypervisor sees it."""


@runtime_checkable
class HotplugsDisks(Protocol):
    """Of a machine: disks come and go while it runs."""

    def attach_disk(self, name: str, size_mib: int) -> None:
        """Attach a new empty disk whose serial number is `name`."""

    def detach_disk(self, name: str) -> None:
        """Take it away and delete it; returns when the guest let go of it."""


@runtime_checkable
class ResizesDisks(Protocol):
    """Of a machine: a disk grows while it runs."""

    def resize_data_disk(self, size_mib: int) -> None: ...

    def data_disk_used_bytes(self) -> int:
        """How much of the host's storage the data disk occupies (what discard gives back)."""


@runtime_checkable
class HotplugsNics(Protocol):
    """Of a machine: network cards come and go while it runs."""

    def attach_nic(self, name: str, mac: str) -> None: ...

    def detach_nic(self, name: str) -> None: ...


@runtime_checkable
class CountsResets(Protocol):
    """Of a machine: a guest that reboots by itself is noticed."""

    def resets(self) -> int:
        """How often the guest reset itself since the machine was started."""


CAPABILITY_PROTOCOLS: Mapping[Capability, type] = {
    Capability.SNAPSHOTS: Snapshots,
    Capability.WARM_CLONES: ClonesWarm,
    Capability.PAUSES: Pauses,
    Capability.NMI: InjectsNmi,
    Capability.SCREENSHOTS: TakesScreenshots,
    Capability.BALLOON: Balloons,
    Capability.DISK_HOTPLUG: HotplugsDisks,
    Capability.DISK_RESIZE: ResizesDisks,
    Capability.NIC_HOTPLUG: HotplugsNics,
}
