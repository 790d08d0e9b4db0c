"""The owner mark of a libvirt domain: an element of the lab's in its metadata, which libvirt keeps with the domain.

A domain without it, or whose mark another machine's lab wrote, is never touched, whatever its name.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lab.contracts import MachineSpec
from lab.errors import HypervisorRefused
from lab.hypervisors import _libvirt_xml as xml
from lab.hypervisors import _machine_directory as files

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LARGEST = 1 << 16


@dataclass(frozen=True)
class Mark:
    """What the metadata hold."""

    spec: MachineSpec
    uuid: str
    controller: str
    wanted: str = "stopped"  # "stopped" or "running": what the lab asked last
    ports: Mapping[int, int] = field(default_factory=dict)  # TCP port of the guest: port that leads to it
    resets: int = 0  # since the last start
    fired: int = 0  # the watchdog, the same
    plugged: tuple[str, ...] = ()  # disks that came while it ran
    cards: tuple[str, ...] = ()
    modules: Mapping[str, int] = field(default_factory=dict)  # memory that came while it ran, in MiB
    resized_mib: int = 0  # of the data disk, when it is not what the spec says
    generation: int = 0  # of its disks: how often they moved onto other volumes

    @property
    def domain(self) -> str:
        """The domain's name."""
        return domain_of(self.spec.name)


def domain_of(name: str) -> str:
    """The domain's name for a machine's. Raises `HypervisorRefused` for what cannot be one."""
    if not _SAFE_NAME.fullmatch(name):
        raise HypervisorRefused(f"{name!r} cannot be the name of a machine")
    return f"lab-{name}"


@functools.cache
def controller() -> str:
    """What tells this machine from others that use the same host."""
    try:
        known = Path("/etc/machine-id").read_text().strip()
    except OSError:
        known = ""
    return hashlib.sha256(f"interop-lab {known or socket.gethostname()}".encode()).hexdigest()[:16]


def element(mark: Mark, *, in_domain: bool = True) -> xml.Element:
    """The mark as an element; run and cell can be read without us. Alone it is what libvirt gives its namespace to."""
    owner = mark.spec.owner
    content = {**asdict(mark), "schema": 1}
    named = {"run": owner.run, "cell": owner.cell}
    return xml.Element(f"{xml.PREFIX}:machine" if in_domain else "machine", named, json.dumps(content, default=str))


def read(document: str) -> Mark:
    """The mark in that element. Raises `ValueError`, `KeyError`, `TypeError`: others administer the host."""
    content: Any = json.loads((xml.read(document).text or "")[:_LARGEST])
    spec = files.spec_of(content["spec"])
    if not _UUID.fullmatch(content["uuid"]) or not _SAFE_NAME.fullmatch(spec.name):
        raise ValueError(f"a mark names {spec.name!r} {content['uuid']!r}")
    return Mark(
        spec=spec,
        uuid=content["uuid"],
        controller=str(content["controller"]),
        wanted=str(content["wanted"]),
        ports={int(guest): int(here) for guest, here in content["ports"].items()},
        resets=int(content["resets"]),
        fired=int(content["fired"]),
        plugged=tuple(str(name) for name in content["plugged"]),
        cards=tuple(str(name) for name in content["cards"]),
        modules={str(name): int(size) for name, size in content["modules"].items()},
        resized_mib=int(content["resized_mib"]),
        generation=int(content["generation"]),
    )
