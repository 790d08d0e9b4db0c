"""The folder of one machine in the dom0: its owner mark, its files, what came to it while it ran.

A folder is a machine from the moment it is there, because it is moved into place with its mark inside. The mark holds
the domain's UUID, and a domain with another UUID is never touched, whatever its name. Since a host may serve several
labs, the mark says which machine the controller runs on; what another one made is seen by nobody here.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import socket
import uuid as uuids
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lab import log
from lab.contracts import MachineSpec
from lab.errors import HostError, HypervisorRefused, LabBusy
from lab.hypervisors import _machine_directory as files
from lab.hypervisors._xen_link import Link, said

FOLDER = "/var/lib/interop-lab"
LOGS = "/var/log/xen"
_ARRIVING = "--incoming"
DISK_FULL = "No space left on device"
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MOST = 1000
_LARGEST_MARK = 1 << 16
_log = log.get(__name__)

_CLAIM = """# claim the name and an address of a machine
set -eu
folder=$1 name=$2 mark=$4 draft=$1/.draft-$2-$3
shift 4
umask 077
mkdir -p "$draft"
exec 9>"$folder/.lock"
flock 9
free=
if [ $# != 0 ]; then
  # A new process costs a tenth of a second under emulation, so there is one for all marks.
  taken=$(grep -hso '"address": "[0-9.]*"' "$folder"/*/machine.json || :)
  for address; do
    case $taken in *"\\"$address\\""*) ;; *) free=$address; break ;; esac
  done
  [ -n "$free" ] || { rm -rf "$draft"; exit 18; }
fi
place='"address": ""'
printf '%s' "${mark%%"$place"*}\\"address\\": \\"$free\\"${mark#*"$place"}" >"$draft/machine.json"
# rename(2) refuses to replace a folder that is not empty, so of two that claim a name one succeeds.
mv -T "$draft" "$folder/$name" 2>/dev/null || { rm -rf "$draft"; exit 17; }
echo "$free"
"""
_MARKS = """# read the marks of all machines
cd "$1" 2>/dev/null || exit 0
for mark in */machine.json; do
  [ -f "$mark" ] && head -c 65536 "$mark" && printf '\\0'
done | head -c 3000000
"""


@dataclass(frozen=True)
class Mark:
    """What `machine.json` holds."""

    spec: MachineSpec
    uuid: str
    address: str  # on the bridge; empty when the guest asks a DHCP server
    controller: str
    overlay: bool = False  # the root disk is an overlay over the image, not a copy

    @property
    def domain(self) -> str:
        """The domain's name."""
        return domain_of(self.spec.name)

    @property
    def mac(self) -> str:
        """Of the first card: Xen's own prefix (00:16:3e), the rest from the address, or else from the identity.

        Who knows the address of a machine before this one then knows the card too (QEMU's own network asks nobody
        again whose it is).
        """
        whole = bytes(map(int, self.address.split("."))) if self.address else bytes.fromhex(self.uuid.replace("-", ""))
        return "00:16:3e:" + ":".join(f"{byte:02x}" for byte in whole[-3:])


@dataclass(frozen=True)
class Folder:
    """Where a machine's files are in the dom0."""

    root: str  # of all that the lab keeps there
    name: str
    logs: str = LOGS  # where xl and xenconsoled write

    @property
    def path(self) -> str:
        return f"{self.root}/machines/{self.name}"

    def file(self, name: str) -> str:
        return f"{self.path}/{name}"

    def console(self) -> str:
        """What the guest said, of all boots (xenconsoled(8), --log)."""
        return f"{self.logs}/console/guest-{domain_of(self.name)}.log"

    def console_since(self) -> str:
        """What it said since it migrated: a domain that arrives has another name (tools/xl/xl_migrate.c)."""
        return f"{self.logs}/console/guest-{domain_of(self.name)}{_ARRIVING}.log"

    def serial(self) -> str:
        """What came out of the serial port of an HVM domain, of all boots; its device model writes it."""
        return f"{self.logs}/console/serial-{domain_of(self.name)}.log"

    def device_model_log(self) -> str:
        """What the device model of an HVM domain complained of (libxl_dm.c, libxl__create_qemu_logfile)."""
        return f"{self.logs}/qemu-dm-{domain_of(self.name)}.log"

    def xl_log(self) -> str:
        """What xl saw of the domain since it made it (tools/xl/xl_vmcontrol.c, create_domain)."""
        return f"{self.logs}/xl-{domain_of(self.name)}.log"

    def xl_log_since(self) -> str:
        """What it saw of a domain that migrated."""
        return f"{self.logs}/xl-{domain_of(self.name)}{_ARRIVING}.log"


@functools.cache
def controller() -> str:
    """What tells this machine from others that use the same host."""
    try:
        known = Path("/etc/machine-id").read_text().strip()
    except OSError:
        known = ""
    return hashlib.sha256(f"interop-lab {known or socket.gethostname()}".encode()).hexdigest()[:16]


def domain_of(name: str) -> str:
    """The domain's name for a machine's."""
    return f"lab-{name}"


def folder_of(root: str, name: str, logs: str = LOGS) -> Folder:
    """Raises `HypervisorRefused` for a name that cannot be a folder's."""
    if not _SAFE_NAME.fullmatch(name):
        raise HypervisorRefused(f"{name!r} cannot be the name of a machine")
    return Folder(root, name, logs)


def new_uuid() -> str:
    return str(uuids.uuid4())


def claim(link: Link, folder: Folder, mark: Mark, addresses: Sequence[str] | None = None) -> Mark:
    """Make the folder of a new machine; the mark with the address that is now its own, of `addresses` or of the dom0's.

    Raises `HypervisorRefused` when one is there, `LabBusy` when every address is taken, `HostError`.
    """
    content = json.dumps({**asdict(mark), "schema": 1}, default=str)
    addresses = link.dom0.guest_addresses if addresses is None else addresses
    result = link.sh(_CLAIM, f"{folder.root}/machines", folder.name, mark.uuid, content, *addresses)
    if result.status == 17:
        raise HypervisorRefused(f"a machine {folder.name!r} exists already", hint="destroy it, or run lab reap")
    if result.status == 18:
        raise LabBusy(
            f"{link.host}: all {len(addresses)} addresses for guests are taken",
            hint="destroy machines, or run lab reap",
        )
    if result.status != 0:
        raise trouble(link, f"making {folder.path}", said(result))
    found = result.out.strip()
    if found and found not in addresses:
        raise HostError(f"{link.host}: the dom0 chose {found[:40]!r}, which is none of the addresses for guests")
    return replace(mark, address=found)


def every(link: Link, root: str) -> Iterator[Mark]:
    """The marks of all machines that this controller made on the host, those of dead runs too, by name."""
    result = link.sh(_MARKS, f"{root}/machines")
    for text in result.stdout.split(b"\0")[:_MOST]:
        if not text:
            continue
        try:
            mark = _mark_of(json.loads(text[:_LARGEST_MARK]))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as reason:
            _log.warning("machine.unreadable", host=link.host, reason=reason)
            continue
        if mark.controller == controller():
            yield mark


def trouble(link: Link, doing: str, words: str) -> HostError:
    """The error for a dom0 that cannot keep a file."""
    if DISK_FULL in words:
        return HostError(
            f"{link.host}: no space is left in the dom0 while {doing}",
            hint=f"free some space there; what the lab keeps is in {FOLDER}",
        )
    return HostError(f"{link.host}: {doing}: {words}")


def _mark_of(content: Mapping[str, Any]) -> Mark:
    """Raises `KeyError`, `TypeError`, `ValueError`: the file lies on a machine that others administer."""
    spec = files.spec_of(content["spec"])
    uuid, address = content["uuid"], content["address"]
    if not _UUID.fullmatch(uuid) or not _SAFE_NAME.fullmatch(spec.name):
        raise ValueError(f"a mark names {spec.name!r} {uuid!r}")
    if address and not re.fullmatch(r"(?:\d{1,3}\.){3}\d{1,3}", address):
        raise ValueError(f"a mark gives the address {address!r}")
    return Mark(spec, uuid, address, str(content["controller"]), content.get("overlay") is True)
