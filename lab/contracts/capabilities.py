"""Capabilities: each a Protocol and a member of `Capability`; a driver has one when the methods are there."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Protocol, runtime_checkable

from lab.contracts.behaviour import Machine
from lab.contracts.values import Capability, CommandResult, Endpoint, MachineSpec, Migration


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


LINE_PORT = "org.interop-lab.line.0"
"""What the guest knows its end of a line by: the name of a virtio-serial port."""


@runtime_checkable
class HasLine(Protocol):
    """Of a machine: a line to a program in its guest, beside every network; the guest's end is `LINE_PORT`."""

    def line(self) -> socket.socket:
        """Connect; the caller closes it. Of a machine just cloned it is open since before its processors ran.

        The guest's program reads an end of file while nobody is connected. Raises `HypervisorRefused`.
        """


@runtime_checkable
class CountsResets(Protocol):
    """Of a machine: a guest that reboots by itself is noticed."""

    def resets(self) -> int:
        """How often the guest reset itself since the machine was started."""


@runtime_checkable
class SharesNetworks(Protocol):
    """Of a machine: a further card on a network that other machines of the same host and run are on."""

    def attach_shared_nic(self, name: str, mac: str, network: str) -> None:
        """Attach a card to the network called `network`, which exists as long as a machine is on it.

        Nothing but these machines is on it: no DHCP, no gateway. `HotplugsNics.detach_nic` takes the card away.
        """


@runtime_checkable
class HotplugsCpus(Protocol):
    """Of a machine: processors come and go while it runs, up to the profile's `max_vcpus`."""

    def set_vcpus(self, count: int) -> None:
        """Plug in or out until there are `count`; of the last, returns when the guest let go of them.

        Raises `HypervisorRefused` beyond the profile's limits and when the guest keeps a processor, `NotSupported`
        where the hypervisor cannot take one out.
        """

    def vcpus(self) -> int:
        """How many the machine has now."""


@runtime_checkable
class HotplugsMemory(Protocol):
    """Of a machine: memory modules come and go while it runs, up to the profile's `max_memory_mib`."""

    def attach_memory(self, name: str, size_mib: int) -> None: ...

    def detach_memory(self, name: str) -> None:
        """Returns when the guest let go of it. Raises `HypervisorRefused` when it does not."""


@runtime_checkable
class SavesState(Protocol):
    """Of a machine: it is put to sleep with its memory on disk, without the guest's knowing, and goes on later."""

    def save_state(self) -> None:
        """Keep memory and devices and stop; the next `start` goes on there.

        Raises `HypervisorRefused`, `NotSupported` for hardware whose state cannot be kept.
        """

    def has_saved_state(self) -> bool: ...

    def discard_saved_state(self) -> None:
        """The next `start` boots. Safe to call twice."""


@runtime_checkable
class MigratesLive(Protocol):
    """Of a machine: it moves to another place while it runs."""

    def place(self) -> str:
        """Where it runs now: another answer after each migration."""

    def destinations(self) -> Sequence[str]:
        """Where `migrate_live` can bring it; empty when nowhere."""

    def migrate_live(self, destination: str, *, with_storage: bool, timeout_s: float = 300.0) -> Migration:
        """Move, with the disks or with disks that both places share. The machine keeps its name and its network.

        Raises `HypervisorRefused`, `NotSupported` for hardware that cannot move; the machine then runs on where it was.
        Connections into the guest may be lost; its addresses and endpoints stay.
        """


@runtime_checkable
class MigratesCold(Protocol):
    """Of a machine: it moves to another place while it does not run, off or asleep."""

    def place(self) -> str: ...

    def cold_destinations(self) -> Sequence[str]:
        """Where `migrate_cold` can bring it; empty when nowhere, or when it runs."""

    def migrate_cold(self, destination: str, *, timeout_s: float = 900.0) -> Migration:
        """Carry disks, snapshots and saved state; the next `start` is there. Name, addresses and endpoints stay.

        Raises `HypervisorRefused`, also when it runs; it then is where it was.
        """


@runtime_checkable
class TakesSerialInput(Protocol):
    """Of a machine: its serial console works in the other direction too."""

    def type_on_console(self, data: bytes) -> None:
        """Bytes as if typed at the terminal; returns when they are on the line."""


@runtime_checkable
class Watches(Protocol):
    """Of a machine: a watchdog that fires when the guest stops feeding it."""

    def watchdog_fired(self) -> int:
        """How often since the machine was started; nothing else happens to the guest."""


@runtime_checkable
class EmulatesTpm(Protocol):
    """Of a machine: a Trusted Platform Module of its own, kept over power cycles."""

    def tpm_version(self) -> str:
        """ "2.0", or "" when the profile asks for none."""


@runtime_checkable
class SecureBoots(Protocol):
    """Of a machine: its firmware checks signatures. What the profile asks for at creation can be told and tried."""

    def secure_boot_enforced(self) -> bool:
        """Whether the firmware holds keys and refuses what they did not sign."""

    def boot_unsigned(self) -> None:
        """Of a stopped machine: start it once with a boot program that no key signed; it must not run."""


@runtime_checkable
class BootsFromNetwork(Protocol):
    """Of a machine: its firmware can fetch what it boots (PXE)."""

    def boot_from_network(self, directory: Path, file: str) -> None:
        """Of a stopped machine: start it once from a server that offers `directory`, beginning with `file`."""


@runtime_checkable
class RunsInGuest(Protocol):
    """Of a machine: the hypervisor's own agent in the guest runs programs, without any network."""

    def agent_answers(self) -> bool: ...

    def agent_run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = 60.0) -> CommandResult:
        """Raises `GuestUnreachable` when no agent answers, `CommandTimedOut`."""


@runtime_checkable
class CopiesFiles(Protocol):
    """Of a machine: files go in and out through the agent."""

    def agent_read(self, path: PurePath, *, limit_bytes: int = 16 << 20) -> bytes: ...

    def agent_write(self, path: PurePath, data: bytes) -> None: ...


@runtime_checkable
class ReportsAddresses(Protocol):
    """Of a machine: the agent tells the addresses that the guest really has."""

    def agent_addresses(self) -> Mapping[str, Sequence[str]]:
        """IP addresses by MAC address ("52:54:00:..."), without the loopback card."""


@runtime_checkable
class FreezesFilesystems(Protocol):
    """Of a machine: the agent brings file systems to rest for a consistent copy."""

    def freeze(self) -> int:
        """Bring all file systems to rest; how many. Raises `HypervisorRefused`."""

    def thaw(self) -> int:
        """Let them go on; how many. Safe to call twice."""


@runtime_checkable
class OffersVsock(Protocol):
    """Of a machine: sockets between host and guest without a network."""

    def vsock_endpoint(self, port: int) -> Endpoint:
        """A local TCP port whose connections end at that vsock port of the guest."""


KEY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
KEY_VALUE_BYTES = 1000  # in UTF-8: a KVP of Hyper-V holds 1023 characters, xenstore 2048 bytes


@runtime_checkable
class ExchangesKeyValues(Protocol):
    """Of a machine: host and guest leave each other short texts under names, without a network.

    Xen's xenstore, Hyper-V's KVP, VMware's guestinfo. A name is a `KEY_NAME`, a text has no NUL. They are of a machine
    that is on (`HypervisorRefused` of others), and may be gone when it was off or moved.
    """

    def key_store(self) -> str:
        """Which it is, so that a guest can be told how to speak to it: "xenstore"."""

    def set_key(self, name: str, value: str) -> None:
        """The guest can read it when this returns. Raises `HypervisorRefused` for what is no name or no such text."""

    def key(self, name: str) -> str | None:
        """What the guest, or in a store that both write to the host, left there last; `None` when nothing is.

        What is no UTF-8 is replaced. Raises `HypervisorRefused` for more than `KEY_VALUE_BYTES`.
        """

    def key_names(self) -> Sequence[str]:
        """The names under which something is, sorted, at most a thousand."""

    def delete_key(self, name: str) -> None:
        """Safe to call twice."""


@runtime_checkable
class DumpsMemory(Protocol):
    """Of a machine: all its memory as a file for a debugger."""

    def dump_memory(self, file: Path) -> None:
        """Write an ELF core file on this machine, where none is yet. The machine stands still, and is then as it was.

        Raises `HypervisorRefused` (of a machine that is off), `LabDiskFull`; then no file is left.
        """


@runtime_checkable
class SendsSysrq(Protocol):
    """Of a machine: a magic SysRq key of Linux, for a kernel that listens to nothing else any more."""

    def send_sysrq(self, key: str) -> None:
        """One letter or digit. The guest's kernel may be set not to obey (kernel.sysrq)."""


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
    Capability.SHARED_NETWORKS: SharesNetworks,
    Capability.CPU_HOTPLUG: HotplugsCpus,
    Capability.MEMORY_HOTPLUG: HotplugsMemory,
    Capability.SAVED_STATE: SavesState,
    Capability.LIVE_MIGRATION: MigratesLive,
    Capability.COLD_MIGRATION: MigratesCold,
    Capability.SERIAL_INPUT: TakesSerialInput,
    Capability.WATCHDOG: Watches,
    Capability.TPM: EmulatesTpm,
    Capability.SECURE_BOOT: SecureBoots,
    Capability.NETWORK_BOOT: BootsFromNetwork,
    Capability.GUEST_COMMANDS: RunsInGuest,
    Capability.GUEST_FILES: CopiesFiles,
    Capability.GUEST_ADDRESSES: ReportsAddresses,
    Capability.FILESYSTEM_FREEZE: FreezesFilesystems,
    Capability.VSOCK: OffersVsock,
    Capability.KEY_VALUES: ExchangesKeyValues,
    Capability.MEMORY_DUMP: DumpsMemory,
    Capability.SYSRQ: SendsSysrq,
}
