"""Xen on another machine: the toolstack xl over one SSH connection to the dom0; PV and PVH guests on its bridge.

The dom0 needs xl 4.4 or later, GNU coreutils, util-linux, iproute2, and a xenconsoled that logs what guests say.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, field_validator

from lab.contracts import Profile, Realness

if TYPE_CHECKING:  # an inventory that names this driver must not pay for what only a connection needs
    from lab.hypervisors._xen_host import XenHost

REALNESS = Realness.REAL
RUNS_HERE = False


class Settings(BaseModel):
    """Of a host: its `lab_*` variables."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    address: str = Field(min_length=1, description="host name or address of the dom0")
    port: int = Field(default=22, ge=1, le=65535, description="of its SSH server")
    user: str = Field(default="root", min_length=1, description="who may run xl there")
    private_key: str = Field(
        min_length=1, description="absolute path on this machine of an ed25519 key without passphrase"
    )
    host_key: str = Field(
        pattern=r"^ssh-ed25519 [A-Za-z0-9+/]{40,200}={0,2}$",
        description='the dom0\'s public host key, "ssh-ed25519 AAAA..."; there is no trust on first use',
    )
    bridge: str = Field(
        default="xenbr0", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$", description="of the dom0, for guests"
    )
    guest_addresses: list[str] = Field(
        default=[],
        max_length=1000,
        description="IPv4 addresses on the bridge that guests may take; none: they ask a DHCP server",
    )
    guest_prefix: int = Field(
        default=24, ge=1, le=31, description="length of the network's prefix, with guest_addresses"
    )
    gateway: str = Field(default="", description="of the guests, with guest_addresses")
    folder: str = Field(
        default="/var/lib/interop-lab",
        pattern=r"^/[A-Za-z0-9._/+-]{1,200}$",
        description="in the dom0, for disks, images and memory of machines",
    )

    @field_validator("guest_addresses", "gateway")
    @classmethod
    def _are_addresses(cls, value: list[str] | str) -> list[str] | str:
        import ipaddress

        for one in [value] if isinstance(value, str) else value:
            if one:
                ipaddress.IPv4Address(one)
        return value

    @field_validator("folder")
    @classmethod
    def _climbs_nowhere(cls, value: str) -> str:
        if ".." in value.split("/"):
            raise ValueError("no .. in it")
        return value


def refuses(profile: Profile) -> str | None:
    """Why no Xen host of the lab can make that hardware, or `None`."""
    from lab.hypervisors._xen_profile import refuses as why

    return why(profile)


@contextmanager
def connect(name: str, settings: Settings) -> Iterator[XenHost]:
    """Log in to the dom0 and look whether it can be used. Raises `HostError`."""
    from lab.contracts import Endpoint, SshLogin
    from lab.hypervisors._xen_dom0 import Dom0
    from lab.hypervisors._xen_host import connect_to

    dom0 = Dom0(
        endpoint=Endpoint(settings.address, settings.port),
        login=SshLogin(settings.user, Path(settings.private_key), settings.host_key),
        bridge=settings.bridge,
        guest_addresses=tuple(settings.guest_addresses),
        guest_prefix=settings.guest_prefix,
        gateway=settings.gateway,
    )
    with connect_to(name, dom0, folder=settings.folder) as host:
        yield host
