"""Disks, cards, memory and processors that come and go while a Xen machine runs."""

from __future__ import annotations

import re

from lab import waiting
from lab.errors import HypervisorRefused, WaitedTooLong
from lab.hypervisors import _xen_plugged as plugged
from lab.hypervisors import _xen_power as power
from lab.hypervisors._xen_config import Disk, Nic
from lab.hypervisors._xen_link import said
from lab.hypervisors._xen_plugged import Devices
from lab.hypervisors._xen_power import Machine

_LET_GO_S = 30.0
_PLUG_S = 120.0
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.IGNORECASE)
# blkif.h: the number of a disk is 202 << 8 | its letter << 4, and the path of its backend ends in it.
_DATA_DISK = 202 << 8 | 2 << 4

_ATTACH_DISK = """# attach a disk
set -eu
umask 077
mkdir -p "$1/plugged"
truncate -s "$5" "$3"
xl block-attach "$2" "$4" </dev/null || { rm -f "$3"; exit 1; }
echo "$7" >"$1/plugged/disk-$6"
"""
# Here xl takes each key of a card as a word of its own, and ignores what follows a comma (tools/xl/xl_nic.c).
_ATTACH_NIC = """# attach a card
set -eu
umask 077
folder=$1 domain=$2 name=$3 line=$4
shift 4
mkdir -p "$folder/plugged"
xl network-attach "$domain" "$@" </dev/null
echo "$line" >"$folder/plugged/nic-$name"
"""
_RESIZE = """# let a disk grow
set -eu
truncate -s "$1" "$2"
loop=$(losetup -n -O NAME -j "$2" | head -n 1)
[ -n "$loop" ] || { echo "no loop device holds $2" >&2; exit 1; }
losetup -c "$loop"
# The backend tells the new size only when the guest uses the disk next (drivers/block/xen-blkback, xen_vbd_resize);
# these are the writes that it would make then, by which the guest notices now.
xenstore-write "$3/sectors" "$(($1 / 512))" "$3/state" 4
"""


def attach_disk(machine: Machine, name: str, size_mib: int) -> None:
    """Raises `HypervisorRefused`, `LabBusy`, `HostError`."""
    domain, devices = _checked(machine, "disk", name)
    taken = {slot for _, slot in devices.slots}
    free = next((slot for slot in plugged.SLOTS if slot not in taken), None)
    if free is None:
        raise HypervisorRefused(f"{machine.name} has no place for another disk: {len(plugged.SLOTS)} were attached")
    if size_mib < 1:
        raise HypervisorRefused(f"a disk of {size_mib} MiB cannot be made")
    file = plugged.file_of(machine.folder, name)
    words = (machine.folder.path, str(domain), file, Disk(file, free).word(), f"{size_mib}M", name, free)
    result = machine.link.sh(_ATTACH_DISK, *words, timeout_s=_PLUG_S)
    if result.status != 0:
        raise power.refused(machine, "block-attach", said(result))


def attach_nic(machine: Machine, name: str, mac: str, *, network: str = "") -> None:
    """On the bridge of all guests, or on one of the machine's run. Raises `HypervisorRefused`, `HostError`."""
    if not _MAC.fullmatch(mac):
        raise HypervisorRefused(f"{mac!r} is not the address of a network card")
    domain, _ = _checked(machine, "nic", name)
    bridge = plugged.bridge_of(machine.mark.spec.owner.run, network) if network else machine.link.dom0.bridge
    card = Devices(cards=((name, mac.lower(), bridge),))
    plugged.make_bridges(machine.link, card)
    words = (machine.folder.path, str(domain), name, f"{mac.lower()} {bridge}")
    keys = Nic(mac.lower(), bridge).word(machine.kind).split(",")
    result = machine.link.sh(_ATTACH_NIC, *words, *keys, timeout_s=_PLUG_S)
    if result.status != 0:
        plugged.leave_bridges(machine.link, card.bridges())
        raise power.refused(machine, "network-attach", said(result))


def detach_disk(machine: Machine, name: str) -> None:
    """Take it away when the guest let go of it, and delete it. Raises `HypervisorRefused`."""
    domain, devices = _up(machine)
    slot = dict(devices.slots).get(name)
    if slot is None:
        raise _unknown(machine, "disk", name)
    _detach(machine, "disk", name, ("block-detach", str(domain), slot))
    machine.link.run(("rm", "-f", machine.folder.file(f"plugged/disk-{name}"), plugged.file_of(machine.folder, name)))


def detach_nic(machine: Machine, name: str) -> None:
    """Raises `HypervisorRefused` when the guest does not let go of it."""
    domain, devices = _up(machine)
    found = {card[0]: card for card in devices.cards}.get(name)
    if found is None:
        raise _unknown(machine, "nic", name)
    _detach(machine, "nic", name, ("network-detach", str(domain), found[1]))
    machine.link.run(("rm", "-f", machine.folder.file(f"plugged/nic-{name}")))
    plugged.leave_bridges(machine.link, Devices(cards=(found,)).bridges())


def _detach(machine: Machine, kind: str, name: str, words: tuple[str, ...]) -> None:
    result = machine.link.run(("xl", *words), timeout_s=_PLUG_S)
    if result.status != 0:
        raise HypervisorRefused(
            f"the {kind} {name} of {machine.name} cannot be detached: {said(result)}",
            hint="something in the guest holds it open: a mount, a process",
        )


def _checked(machine: Machine, kind: str, name: str) -> tuple[int, Devices]:
    """The domain's number and what is plugged. Raises `HypervisorRefused` for a name that cannot be or is there."""
    if not plugged.NAME.fullmatch(name):
        raise HypervisorRefused(f"{name!r} cannot be the name of a {kind}: 1 to 20 letters, digits, _ and -")
    domain, devices = _up(machine)
    names = {
        "disk": [one for one, _ in devices.slots],
        "nic": [one for one, _, _ in devices.cards],
        "memory": [one for one, _ in devices.memory],
    }
    if name in names[kind]:
        raise HypervisorRefused(f"{machine.name} has a {kind} {name!r} already")
    return domain, devices


def _up(machine: Machine) -> tuple[int, Devices]:
    """The domain's number and what is plugged, by one look."""
    found = power.look(machine)
    return power.domain_of(machine, found).domid, found.devices


def _unknown(machine: Machine, kind: str, name: str) -> HypervisorRefused:
    return HypervisorRefused(f"{machine.name} has no {kind} {name!r} that was attached while it ran")


# ---------------------------------------------------------------------------------------------------------
# The data disk


def resize_data(machine: Machine, size_mib: int) -> None:
    """Raises `HypervisorRefused` when it would shrink or there is none."""
    if not machine.mark.spec.data_disk_mib:
        raise HypervisorRefused(f"{machine.name} has no data disk")
    domain = power.require_up(machine).domid
    file = machine.folder.file("data.raw")
    has = int(machine.link.run(("stat", "-c", "%s", file)).out or 0)
    if size_mib << 20 < has:
        raise HypervisorRefused(f"the data disk of {machine.name} has {has >> 20} MiB and cannot shrink to {size_mib}")
    backend = f"/local/domain/0/backend/vbd/{domain}/{_DATA_DISK}"
    result = machine.link.sh(_RESIZE, str(size_mib << 20), file, backend)
    if result.status != 0:
        raise power.refused(machine, "resize", said(result))


def data_used_bytes(machine: Machine) -> int:
    """Raises `HypervisorRefused` when there is none."""
    result = machine.link.run(("stat", "-c", "%b %B", machine.folder.file("data.raw")))
    counted = re.fullmatch(r"(\d{1,15}) (\d{1,6})", result.out.strip())
    if result.status != 0 or counted is None:
        raise HypervisorRefused(f"{machine.name} has no data disk")
    return int(counted[1]) * int(counted[2])


# ---------------------------------------------------------------------------------------------------------
# Memory and processors


def set_memory(machine: Machine, memory_mib: int) -> None:
    """Ask the guest's balloon for that much; returns at once. Raises `HypervisorRefused`."""
    domain = power.require_up(machine).domid
    power.command(machine, "mem-set", str(domain), f"{memory_mib}m", timeout_s=_PLUG_S)


def attach_memory(machine: Machine, name: str, size_mib: int) -> None:
    """More memory up to the profile's `max_memory_mib`. Raises `HypervisorRefused`."""
    _, devices = _checked(machine, "memory", name)
    profile = machine.mark.spec.profile
    total = profile.memory_mib + sum(size for _, size in devices.memory) + size_mib
    if size_mib < 1 or total > max(profile.memory_mib, profile.max_memory_mib):
        raise HypervisorRefused(
            f"{machine.name} can have {profile.max_memory_mib or profile.memory_mib} MiB, and {total} were asked for"
        )
    set_memory(machine, total)
    note = '# note memory\nset -eu\nmkdir -p "$1/plugged"\necho "$3" >"$1/plugged/memory-$2"'
    machine.link.sh(note, machine.folder.path, name, str(size_mib))


def detach_memory(machine: Machine, name: str) -> None:
    """Returns when the guest gave it back. Raises `HypervisorRefused` when it does not."""
    _, devices = _up(machine)
    memory = dict(devices.memory)
    if name not in memory:
        raise _unknown(machine, "memory", name)
    left = machine.mark.spec.profile.memory_mib + sum(memory.values()) - memory[name]
    set_memory(machine, left)
    try:
        waiting.until(
            lambda: power.require_up(machine).memory_mib <= left,
            what=f"{machine.name} to give {memory[name]} MiB back",
            timeout_s=_LET_GO_S,
        )
    except WaitedTooLong as reason:
        raise HypervisorRefused(f"the memory {name} cannot be detached: {reason}") from reason
    machine.link.run(("rm", "-f", machine.folder.file(f"plugged/memory-{name}")))


def set_vcpus(machine: Machine, count: int) -> None:
    """Raises `HypervisorRefused` beyond the profile's limits and when the guest keeps a processor."""
    profile = machine.mark.spec.profile
    most = max(profile.vcpus, profile.max_vcpus)
    if not 1 <= count <= most:
        raise HypervisorRefused(f"{machine.name} can have 1 to {most} processors, not {count}")
    domain = power.require_up(machine)
    power.command(machine, "vcpu-set", str(domain.domid), str(count))
    if count >= domain.vcpus:
        return  # that they are used is the guest's affair
    try:
        waiting.until(
            lambda: power.require_up(machine).vcpus <= count,
            what=f"{machine.name} to let go of a processor",
            timeout_s=_LET_GO_S,
        )
    except WaitedTooLong as reason:
        raise HypervisorRefused(f"a processor of {machine.name} cannot be taken out: {reason}") from reason
