"""What `xl list` says about the domains of a host, read as if somebody hostile had written it: bounded, never guessed.

`xl list -v` (tools/xl/xl_list.c, list_domains) is the only form that tells states; `xl list -l` (JSON) tells names and
identities beyond doubt, because in the table a name may hold spaces.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lab.contracts import MachineState
from lab.errors import HostError

_LONGEST = 4 << 20
_MOST = 4096
_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_LINE = re.compile(
    r"(?P<name>.*?) +(?P<domid>\d{1,5}) +(?P<mem>\d{1,12}) +(?P<vcpus>\d{1,5}) +"
    r"(?P<flags>[r-][b-][p-][s-][-rscwS?][d-]) +\d+\.\d +(?P<uuid>" + _UUID + r")(?: .*)?"
)
_HEAD = re.compile(r"Name +ID +Mem +VCPUs\s+State\s+Time\(s\) +UUID\b.*")


@dataclass(frozen=True)
class Running:
    """A domain that the hypervisor holds, whatever it does."""

    domid: int
    uuid: str
    name: str
    memory_mib: int
    vcpus: int
    flags: str  # "rbps?d", a dash where one does not hold; the fifth says why it ended

    @property
    def state(self) -> MachineState:
        """What it is for the lab."""
        paused, ended, why = self.flags[2], self.flags[3], self.flags[4]
        if ended == "s":
            # sched.h, SHUTDOWN_*: poweroff has no letter; a reboot and a suspension are on their way somewhere.
            if why == "-":
                return MachineState.STOPPED
            return MachineState.RUNNING if why in "rsS" else MachineState.CRASHED
        return MachineState.PAUSED if paused == "p" else MachineState.RUNNING

    @property
    def is_dying(self) -> bool:
        """Whether it is on its way out, holding only memory."""
        return self.flags[5] == "d"


@dataclass(frozen=True)
class Named:
    """A domain as the toolstack's own records have it."""

    domid: int
    uuid: str
    name: str


def table(said: str, host: str) -> Sequence[Running]:
    """The domains of `xl list -v`. Raises `HostError` for what no xl says."""
    lines = _bounded(said, host).splitlines()
    if not lines or not _HEAD.fullmatch(lines[0]):
        raise _nonsense(host, said)
    found = []
    for line in lines[1:]:
        match = _LINE.fullmatch(line)
        if match is None:
            # A name with a line break in it makes two lines of which neither fits; it is nobody of ours.
            continue
        found.append(
            Running(
                domid=int(match["domid"]),
                uuid=match["uuid"],
                name=match["name"],
                memory_mib=int(match["mem"]),
                vcpus=int(match["vcpus"]),
                flags=match["flags"],
            )
        )
    return found


def by_uuid(said: str, uuid: str, host: str) -> Running | None:
    """The one with that identity; one that is dying is gone. Raises `HostError`."""
    return next((one for one in table(said, host) if one.uuid == uuid and not one.is_dying), None)


def named(said: str, host: str) -> Sequence[Named]:
    """The domains of `xl list -l`. Raises `HostError` for what no xl says."""
    try:
        content = json.loads(_bounded(said, host) or "[]")
    except (ValueError, RecursionError):
        raise _nonsense(host, said) from None
    if not isinstance(content, list) or len(content) > _MOST:
        raise _nonsense(host, said)
    return [one for one in (_named(entry) for entry in content) if one is not None]


def _named(entry: object) -> Named | None:
    """`None` for what has no identity, as the dom0 of some releases."""
    info = entry.get("config") if isinstance(entry, Mapping) else None
    create = info.get("c_info") if isinstance(info, Mapping) else None
    if not isinstance(entry, Mapping) or not isinstance(create, Mapping):
        return None
    domid, uuid, name = entry.get("domid"), create.get("uuid"), create.get("name")
    if not isinstance(domid, int) or isinstance(domid, bool) or not 0 <= domid < 1 << 15:
        return None
    if not isinstance(uuid, str) or not re.fullmatch(_UUID, uuid) or not isinstance(name, str):
        return None
    return Named(domid, uuid, name)


def _bounded(said: str, host: str) -> str:
    if len(said) > _LONGEST or said.count("\n") > _LONGEST // 64:
        raise HostError(f"{host}: xl list answers with more than {_LONGEST >> 20} MiB")
    return said


def _nonsense(host: str, said: str) -> HostError:
    return HostError(
        f"{host}: xl list answers what no xl says: {said[:200]!r}",
        hint="is xl in the dom0 Xen's toolstack, and default_output_format in /etc/xen/xl.conf json?",
    )
