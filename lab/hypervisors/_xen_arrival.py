"""The other end of a migration between Xen hosts: a machine's folder before it arrives, its disks when it stands still.

A machine that does not run is carried whole instead (`carry`).

A domain wants its disks before anything of their content is there. So an overlay begins as a device of the right size
that lets nobody read (device-mapper holds what is asked of a suspended device), until its content came.
"""

from __future__ import annotations

import time
from dataclasses import replace

from lab.errors import HypervisorRefused, LabBusy
from lab.hypervisors import _xen_disks as disks
from lab.hypervisors import _xen_images as images
from lab.hypervisors import _xen_plugged as plugged
from lab.hypervisors import _xen_power as power
from lab.hypervisors import _xen_store as store
from lab.hypervisors import _xen_traces as traces
from lab.hypervisors._xen_link import said
from lab.hypervisors._xen_power import Machine
from lab.hypervisors._xen_sites import Site
from lab.ssh._pump import Pump

_AHEAD = 1 << 20
_END_S = 60.0

# The sizes of all disks of a machine, so that they can be there before their content.
_SIZES = """# measure disks
cd "$1" && for file in root.raw data.raw seed.raw plugged-*.raw; do
  [ ! -f "$file" ] || echo "$file $(stat -c %s "$file")"
done
"""
_ROOM = f"""# make room for disks
set -eu
{disks.NO_UDEV}
umask 077
folder=$1 device=$2 base=$3
shift 3
while [ $# -gt 1 ]; do truncate -s "$2" "$folder/$1"; shift 2; done
[ -n "$base" ] || exit 0
echo "$base" >"$folder/root.base"
loop=
[ -b "$base" ] || {{ loop=$(losetup -r --show -f "$base"); base=$loop; }}
truncate -s 4M "$folder/.empty"
cow=$(losetup --show -f "$folder/.empty")
done=0
# An overlay without content, because a guest asks at once what its disk can do, and goes by it (flushes).
dmsetup create "$device" --table "0 $(blockdev --getsz "$base") snapshot $base $cow P {disks.CHUNK_SECTORS}" || done=$?
losetup -d "$cow" $loop
rm -f "$folder/.empty"
[ "$done" = 0 ] && dmsetup suspend "$device"
"""
_PACK = """# send disks
cd "$1" &&
  tar -cSf - $(ls -d root.cow root.raw data.raw seed.raw plugged plugged-*.raw snapshots saved 2>/dev/null) | gzip -1
"""
# The files stay the ones that the domain's loop devices hold.
_UNPACK = """# take disks
set -e
gzip -dc | tar -xSf - --overwrite -C "$1"
"""
_SWAP = """# let disks be used
set -eu
folder=$1 device=$2
[ -f "$folder/root.cow" ] || exit 0
read -r base <"$folder/root.base"
loop=
[ -b "$base" ] || { loop=$(losetup -r --show -f "$base"); base=$loop; }
cow=$(losetup --show -f "$folder/root.cow")
done=0
dmsetup load "$device" --table "0 $(blockdev --getsz "$base") snapshot $base $cow P CHUNK" || done=$?
losetup -d "$cow" $loop
[ "$done" = 0 ] && dmsetup resume "$device"
""".replace("CHUNK", str(disks.CHUNK_SECTORS))
# The configuration for a memory that is restored here: that in its file names folders of the other host.
_SETTLED = """# keep a machine that came
set -eu
umask 077
[ ! -f "$1/root.cow" ] || echo "$2" >"$1/root.base"
[ ! -f "$1/saved" ] || printf '%s' "$3" >"$1/came.cfg"
"""
_DROP = f"""# drop disks that nobody uses
{disks.NO_UDEV}
dmsetup resume "$1" 2>/dev/null
dmsetup remove --retry "$1" 2>/dev/null
:
"""
_RUNS = '# note a wish\necho "$3" >"$1/wanted"\ncat >"$2"'


def prepare(machine: Machine, peer: Site) -> Machine:
    """The machine as it will be at the other host: its folder is claimed, its image is there, its disks have room.

    Raises `HypervisorRefused`, `HostError`, `ImageError`; then nothing of it is there.
    """
    found = power.look(machine)
    there, disk = _claim(machine, peer)
    folder, mark = there.folder, there.mark
    try:
        sizes = machine.link.sh(_SIZES, machine.folder.path).out.split()
        base = disk if mark.overlay else ""
        result = peer.link.sh(_ROOM, folder.path, disks.device_of(mark.uuid), base, *sizes)
        if result.status != 0:
            raise store.trouble(peer.link, f"making room for {machine.name}", said(result))
        plugged.make_bridges(peer.link, found.devices)
    except BaseException:
        clear(there)
        raise
    return there


def _claim(machine: Machine, peer: Site) -> tuple[Machine, str]:
    """The machine with a folder of its name at the other host, and where its image's disk is there."""
    mark, spec = machine.mark, machine.mark.spec
    folder = store.folder_of(peer.folder, spec.name, peer.logs)
    parts = images.bring(peer.link, peer.folder, spec.image, machine.kind)
    try:
        claimed = store.claim(peer.link, folder, replace(mark, address=""), (mark.address,) if mark.address else ())
    except LabBusy as reason:
        raise HypervisorRefused(
            f"{peer.name}: the address {mark.address} of {machine.name} is taken there", hint="destroy what has it"
        ) from reason
    return Machine(peer.link, peer.toolstack, claimed, folder), parts.disk


def carry(machine: Machine, peer: Site, deadline: float) -> tuple[Machine, int]:
    """Copy a machine that does not run to another host, with all that it has; it there, and how many bytes it took.

    Raises `HypervisorRefused`, `HostError`, `ImageError`; then nothing of it is there.
    """
    found = power.look(machine)
    there, disk = _claim(machine, peer)
    try:
        copied = _copy(machine, there, deadline)
        config = power.configuration(there, found.devices)
        result = there.link.sh(_SETTLED, there.folder.path, disk, config)
        if result.status != 0:
            raise store.trouble(peer.link, f"keeping {machine.name}", said(result))
    except BaseException:
        clear(there)
        raise
    return there, copied


def bring_disks(machine: Machine, there: Machine, deadline: float) -> int:
    """Copy what its disks hold while it stands still; how many bytes went over. Raises `HypervisorRefused`."""
    copied = _copy(machine, there, deadline)
    result = there.link.sh(_SWAP, there.folder.path, disks.device_of(there.mark.uuid))
    if result.status != 0:
        raise HypervisorRefused(f"{there.link.host}: the disks of {there.name} cannot be used: {said(result)}")
    return copied


def _copy(machine: Machine, there: Machine, deadline: float) -> int:
    left_s = max(1.0, deadline - time.monotonic())
    source = machine.link.program(("/bin/sh", "-c", _PACK, "sh", machine.folder.path), timeout_s=left_s)
    sink = there.link.program(("/bin/sh", "-c", _UNPACK, "sh", there.folder.path), timeout_s=left_s)
    try:
        copied = _pipe(source, sink, deadline)
    finally:
        source.close()
        sink.close()
    return copied


def _pipe(source: Pump, sink: Pump, deadline: float) -> int:
    waiting, copied, ended = b"", 0, False
    while sink.status() is None:
        moved = False
        if len(waiting) < _AHEAD and not ended:
            out, _ = source.take()
            waiting += out
        if waiting:
            done = sink.send_some(waiting)
            waiting, copied, moved = waiting[done:], copied + done, done > 0
        elif not ended and source.has_ended():
            sink.end_input()
            ended = True
        sink.take()
        if not moved:
            try:
                (sink if ended else source).wait(deadline, at_most_s=0.01)
            except TimeoutError:
                raise HypervisorRefused("the disks did not arrive in time") from None
    if sink.status() != 0 or source.status() not in (0, None) or not ended:
        raise HypervisorRefused(f"the disks did not arrive whole ({source.status()}, {sink.status()})")
    return copied


def settle(machine: Machine, there: Machine, *, running: bool = True) -> None:
    """The machine is there: its console and its ports come along, nothing of it stays. Raises `HostError`."""
    said_so_far = traces.console(machine)
    wanted = "running" if running else "stopped"
    there.link.sh(_RUNS, there.folder.path, there.folder.console(), wanted, stdin=said_so_far or b"\n")
    if machine.mark.address:
        machine.link.hand_over(machine.mark.address, there.link)
    clear(machine)


def clear(machine: Machine) -> None:
    """Remove a machine from a host, whatever of it is there. Raises `HypervisorRefused`, `HostError`."""
    found = power.end(machine)
    machine.link.sh(_DROP, disks.device_of(machine.mark.uuid))
    traces.remove(machine, found)
