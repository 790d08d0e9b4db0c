"""Snapshots of a Xen machine: `xl save` keeps its memory and leaves it paused, its disks are copied, it goes on."""

from __future__ import annotations

from urllib.parse import quote, unquote

from lab.contracts import MachineState
from lab.errors import HypervisorRefused
from lab.hypervisors import _xen_disks as disks
from lab.hypervisors import _xen_power as power
from lab.hypervisors import _xen_store as store
from lab.hypervisors._xen_link import said
from lab.hypervisors._xen_power import Machine
from lab.hypervisors._xen_toolstack import Can

_PREFIX = "of-"  # keeps "." and ".." from being folders
_LONGEST_NAME = 60
_COPY_S = 600.0

_KEPT = " ".join(disks.KEPT)
_TAKE = f"""# take a snapshot
set -eu
folder=$1 target=$2 domain=$3 was_paused=$4 draft=$2.draft
[ ! -e "$target" ] || exit 17
umask 077
rm -rf "$draft"
mkdir -p "$draft"
goes_on() {{ [ -z "$domain" ] || [ "$was_paused" = yes ] || xl unpause "$domain"; }}
trap 'rm -rf "$draft"; goes_on' EXIT
[ -z "$domain" ] || xl save -p "$domain" "$draft/memory" >&2
for disk in {_KEPT}; do
  [ ! -f "$folder/$disk" ] || cp --sparse=always --reflink=auto "$folder/$disk" "$draft/"
done
mv -T "$draft" "$target"
"""
# Whole copies first, so that a full disk leaves the machine as it was.
_PUT_BACK = f"""# put a snapshot back
set -eu
{disks.FUNCTIONS}
folder=$1 source=$2 device=$3
trap 'rm -f "$folder"/.back-*' EXIT
for disk in {_KEPT}; do
  [ ! -f "$source/$disk" ] || cp --sparse=always --reflink=auto "$source/$disk" "$folder/.back-$disk"
done
detach "$folder" "$device" || {{ echo "the overlay $device is in use" >&2; exit 1; }}
for disk in {_KEPT}; do
  [ ! -f "$folder/.back-$disk" ] || mv -f "$folder/.back-$disk" "$folder/$disk"
done
rm -f "$folder/saved"
[ -f "$source/memory" ] || exit 0
attach "$folder" "$device"
xl restore "$source/memory" </dev/null
echo running >"$folder/wanted"
"""


def take(machine: Machine, name: str) -> None:
    """Keep disks and, of one that runs, memory. Raises `HypervisorRefused`, `HostError`."""
    target = _folder(machine, name)
    lacks = machine.toolstack.lacks(Can.SAVE_PAUSED)
    if lacks is not None:
        raise HypervisorRefused(lacks)
    found = power.look(machine)
    _refuse_plugged(found, "taken")
    runs = found.domain is not None and found.state in (MachineState.RUNNING, MachineState.PAUSED)
    domain = str(found.domain.domid) if runs and found.domain is not None else ""
    paused = "yes" if found.state is MachineState.PAUSED else "no"
    result = machine.link.sh(_TAKE, machine.folder.path, target, domain, paused, timeout_s=_COPY_S)
    if result.status == 17:
        raise HypervisorRefused(f"a snapshot {name!r} of {machine.name} exists already")
    if result.status != 0:
        raise power.refused(machine, "save", said(result))


def restore(machine: Machine, name: str) -> None:
    """Go back. Raises `HypervisorRefused`, `HostError`."""
    source = _folder(machine, name)
    known = names(machine)
    if name not in known:
        raise HypervisorRefused(f"there is no snapshot {name!r} of {machine.name}; there are: {known}")
    _refuse_plugged(power.look(machine), "restored")
    power.cut(machine)
    device = disks.device_of(machine.mark.uuid)
    result = machine.link.sh(_PUT_BACK, machine.folder.path, source, device, timeout_s=_COPY_S)
    if result.status != 0:
        raise power.refused(machine, "restore", said(result))


def forget(machine: Machine, name: str) -> None:
    """Raises `HypervisorRefused` when there is none of that name."""
    target = _folder(machine, name)
    if name not in names(machine):
        raise HypervisorRefused(f"{machine.name} has no snapshot {name!r}")
    result = machine.link.run(("rm", "-rf", target))
    if result.status != 0:
        raise store.trouble(machine.link, f"removing {target}", said(result))


def names(machine: Machine) -> tuple[str, ...]:
    """Sorted."""
    result = machine.link.sh('# list snapshots\nls "$1" 2>/dev/null | head -n 1000', machine.folder.file("snapshots"))
    kept = (line for line in result.out.splitlines() if line.startswith(_PREFIX) and not line.endswith(".draft"))
    return tuple(sorted(unquote(line.removeprefix(_PREFIX)) for line in kept))


def _folder(machine: Machine, name: str) -> str:
    if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable() or len(quote(name, safe="")) > 2 * _LONGEST_NAME:
        raise HypervisorRefused(f"{name!r} cannot be the name of a snapshot: 1 to {_LONGEST_NAME} printable characters")
    # `quote` leaves dots, and a snapshot is not to be taken for a draft.
    return machine.folder.file(f"snapshots/{_PREFIX}{quote(name, safe='').replace('.', '%2E')}")


def _refuse_plugged(found: power.Look, doing: str) -> None:
    """A disk that came later is not in a snapshot, and would be torn from the others."""
    plugged = [name for name, _ in found.devices.slots]
    if plugged:
        raise HypervisorRefused(f"a snapshot cannot be {doing} while disks are plugged: {', '.join(plugged)}")
