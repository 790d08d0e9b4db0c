"""User-Mode Linux on this machine: a Linux kernel as an ordinary process, without any privilege.

Debian's linux.uml is its own kernel, so kernel and initial RAM disk of an image are not used. A machine cannot be
saved with its memory, so there are no warm clones.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from lab.contracts import Firmware, Profile, Realness

if TYPE_CHECKING:  # an inventory that names this driver must not pay for what only a connection needs
    from lab.hypervisors._uml_host import UmlHost

REALNESS = Realness.REAL
RUNS_HERE = True


class Settings(BaseModel):
    """Of a host: its `lab_*` variables."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    program: str = Field(default="linux.uml", description="program name or absolute path of the kernel")


def refuses(profile: Profile) -> str | None:
    """Why User-Mode Linux cannot make that hardware, or `None`."""
    if profile.firmware is not Firmware.NONE:
        return f"User-Mode Linux has no firmware and cannot boot through {profile.firmware.upper()}"
    if profile.disk != "ubd":
        return f'User-Mode Linux has "ubd" disks, not "{profile.disk}"'
    if profile.nic != "vector":
        return f'User-Mode Linux has "vector" network cards, not "{profile.nic}"'
    if profile.vcpus != 1:
        return f"linux.uml has one processor, not {profile.vcpus}"
    return None


def prove_network() -> str:
    """One sentence that says that this user may make a machine's network, which was tried. Raises `HostError`."""
    from lab.hypervisors._uml_host import try_network

    return try_network()


@contextmanager
def connect(name: str, settings: Settings) -> Iterator[UmlHost]:
    """Find linux.uml and what it needs. Raises `MissingTool`, `HostError`."""
    from lab import process
    from lab.hypervisors import _uml_xstate as xstate
    from lab.hypervisors._uml_host import UmlHost, require_tun, version_of

    program = process.find(settings.program, package="user-mode-linux")
    require_tun(Path("/dev/net/tun"))
    yield UmlHost(name, str(Path(program).resolve()), version_of(program), xstate.library())
