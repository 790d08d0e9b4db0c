"""Disks and network cards that come and go while a User-Mode Linux machine runs, through its management console."""

from __future__ import annotations

import os
import re
from pathlib import Path

from lab import process, waiting
from lab.errors import HypervisorRefused, WaitedTooLong
from lab.hypervisors import _uml_arguments as arguments
from lab.hypervisors import _uml_control as control
from lab.hypervisors import _uml_network as network
from lab.hypervisors import _uml_power as power
from lab.hypervisors._uml_store import Directory, Plugged

_NIC_SLOTS = range(1, network.TAPS)
_NAME = re.compile(r"[A-Za-z0-9_-]{1,20}")  # a serial number: 20 bytes as for virtio; a comma would begin another word
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.IGNORECASE)
_LET_GO_S = 30.0
_IN_USE = "currently open"
_NOT_THERE = "doesn't exist"


def attach_disk(directory: Directory, name: str, size_mib: int) -> None:
    """Attach a new empty disk with that serial number. Raises `HypervisorRefused`, `LabDiskFull`."""
    slot = _free_slot(directory, "disk", name, arguments.DISK_SLOTS)
    file = directory.plug(slot)
    try:
        os.truncate(file, size_mib << 20)
    except OSError as reason:
        raise process.disk_full_or(reason, f"making the disk {name}") from reason
    _attach(directory, Plugged("disk", name, slot, f"ubd{slot}={file.name},,{name}"))


def attach_nic(directory: Directory, name: str, mac: str) -> None:
    """Attach a network card; the other end of its cable is alone in the machine's namespace."""
    _check_mac(mac)
    slot = _free_slot(directory, "nic", name, _NIC_SLOTS)
    _attach(directory, Plugged("nic", name, slot, _nic_word(slot, mac)))


def attach_shared_nic(directory: Directory, name: str, mac: str, shared: str) -> None:
    """Attach a card on a network that other machines of this host and run are on. Raises `HypervisorRefused`."""
    _check_mac(mac)
    slot = _free_slot(directory, "nic", name, _NIC_SLOTS)
    folder = directory.network(directory.read().spec.owner.run, shared)
    try:
        folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    except OSError as reason:
        raise process.disk_full_or(reason, f"making {folder}") from reason
    try:
        control.share(directory.path, slot, folder, directory.path.name)
        _attach(directory, Plugged("nic", name, slot, _nic_word(slot, mac), str(folder)))
    except BaseException:
        control.unshare(directory.path, slot)
        directory.leave(folder)
        raise


def share_again(directory: Directory) -> None:
    """Bring the shared cards of a machine that was started anew back to their networks."""
    for one in directory.plugged():
        if one.network:
            folder = Path(one.network)
            folder.mkdir(parents=True, mode=0o700, exist_ok=True)
            control.share(directory.path, one.slot, folder, directory.path.name)


def detach(directory: Directory, kind: str, name: str) -> None:
    """Take it away when the guest let go of it, and delete it. Raises `HypervisorRefused` when it does not."""
    power.require_up(directory)
    plugged = directory.plugged()
    found = next((one for one in plugged if (one.kind, one.name) == (kind, name)), None)
    if found is None:
        raise HypervisorRefused(f"{directory.path.name} has no {kind} {name!r} that was attached while it ran")
    device = f"{'ubd' if kind == 'disk' else 'vec'}{found.slot}"
    try:
        waiting.until(
            lambda: _remove(directory, device), what=f"the guest to let go of the {kind} {name}", timeout_s=_LET_GO_S
        )
    except WaitedTooLong as reason:
        raise HypervisorRefused(
            f"the {kind} {name} of {directory.path.name} cannot be detached: {reason}",
            hint="something in the guest holds it open: a mount, a process",
        ) from reason
    directory.keep_plugged(tuple(one for one in plugged if one != found))
    if found.network:
        control.unshare(directory.path, found.slot)
        directory.leave(Path(found.network))
    if kind == "disk":
        _empty(directory.plug(found.slot))


def _check_mac(mac: str) -> None:
    if not _MAC.fullmatch(mac):
        raise HypervisorRefused(f"{mac!r} is not the address of a network card")


def _nic_word(slot: int, mac: str) -> str:
    return f"vec{slot}:transport=tap,ifname={network.tap(slot)},mac={mac},gro=1"


def _attach(directory: Directory, new: Plugged) -> None:
    plugged = directory.plugged()
    # Written down first: linux.uml is started with it again when the guest reboots.
    directory.keep_plugged((*plugged, new))
    try:
        control.mconsole(directory.path, f"config {new.word}")
    except BaseException:
        directory.keep_plugged(plugged)
        if new.kind == "disk":
            _empty(directory.plug(new.slot))
        raise


def _remove(directory: Directory, device: str) -> bool:
    try:
        control.mconsole(directory.path, f"remove {device}")
    except HypervisorRefused as reason:
        if _IN_USE in reason.what:
            return False
        if _NOT_THERE not in reason.what:
            raise
    return True


def _free_slot(directory: Directory, kind: str, name: str, slots: range) -> int:
    power.require_up(directory)
    if not _NAME.fullmatch(name):
        raise HypervisorRefused(f"{name!r} cannot be a serial number: 1 to 20 letters, digits, _ and -")
    same = [one for one in directory.plugged() if one.kind == kind]
    if any(one.name == name for one in same):
        raise HypervisorRefused(f"{directory.path.name} has a {kind} {name!r} already")
    taken = {one.slot for one in same}
    free = next((slot for slot in slots if slot not in taken), None)
    if free is None:
        raise HypervisorRefused(f"{directory.path.name} has no place for another {kind}: {len(slots)} were attached")
    return free


def _empty(file: Path) -> None:
    # It stays where it is: the sandbox shows this very file.
    os.truncate(file, 0)
