"""Xen on another machine: the toolstack xl over one SSH connection to the dom0; PV, PVH and HVM guests on its bridge.

The dom0 needs xl 4.4 or later, GNU coreutils, util-linux, iproute2, and a xenconsoled that logs what guests say.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from lab.contracts import Profile, Realness

if TYPE_CHECKING:  # an inventory that names this driver must not pay for what only a connection needs
    from lab.hypervisors._xen_dom0 import Dom0
    from lab.hypervisors._xen_host import XenHost

REALNESS = Realness.REAL
RUNS_HERE = False


_HOST_KEY = r"^ssh-ed25519 [A-Za-z0-9+/]{40,200}={0,2}$"
_FOLDER = r"^/[A-Za-z0-9._/+-]{1,200}$"


def _climbs_nowhere(value: str) -> str:
    if ".." in value.split("/"):
        raise ValueError("no .. in it")
    return value


class Peer(BaseModel):
    """Another dom0: user, private key, bridge and addresses are those of the host that names it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,62}$", description="what the place is called")
    address: str = Field(min_length=1, description="host name or address of the dom0")
    port: int = Field(default=22, ge=1, le=65535, strict=True, description="of its SSH server")
    host_key: str = Field(pattern=_HOST_KEY, description="the dom0's public host key")
    folder: str = Field(default="", pattern=f"{_FOLDER}|^$", description="as lab_folder, where it is another there")
    log_folder: str = Field(default="", pattern=f"{_FOLDER}|^$", description="as lab_log_folder, where it is another")

    _plain = field_validator("folder", "log_folder")(_climbs_nowhere)


class Settings(BaseModel):
    """Of a host: its `lab_*` variables."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    made_from: Literal["", "xen-host", "xen-host-hvm"] = Field(
        default="",
        description="the recipe of an image, and the lab makes this host itself on this machine, on an emulated "
        "processor: then nothing is said of how to reach it",
    )
    address: str = Field(default="", description="host name or address of the dom0")
    port: int = Field(default=22, ge=1, le=65535, description="of its SSH server")
    user: str = Field(default="root", min_length=1, description="who may run xl there")
    private_key: str = Field(
        default="", description="absolute path on this machine of an ed25519 key without passphrase"
    )
    host_key: str = Field(
        default="",
        pattern=_HOST_KEY,
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
        pattern=_FOLDER,
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

    log_folder: str = Field(
        default="/var/log/xen",
        pattern=_FOLDER,
        description="in the dom0, where xl and xenconsoled write",
    )

    peers: list[Peer] = Field(
        default=[],
        max_length=16,
        description="other dom0s that machines of this host may be brought to, on the same network; each with name, "
        "address, port, host_key, and folder and log_folder where they are others",
    )

    _plain = field_validator("folder", "log_folder")(_climbs_nowhere)

    @model_validator(mode="after")
    def _is_made_or_reached(self) -> Settings:
        reached = {"address": self.address, "private_key": self.private_key, "host_key": self.host_key}
        wrong = [key for key, value in reached.items() if bool(value) == bool(self.made_from)]
        if wrong:
            keys = ", ".join(f"lab_{key}" for key in wrong)
            raise ValueError(f"{keys}: of a host that the lab makes" if self.made_from else f"missing: {keys}")
        if self.made_from and self.peers:
            raise ValueError("lab_peers: not of a host that the lab makes")
        names = [peer.name for peer in self.peers]
        if len(set(names)) != len(names):
            raise ValueError("lab_peers: a name is there twice")
        return self


def refuses(profile: Profile) -> str | None:
    """Why no Xen host of the lab can make that hardware, or `None`."""
    from lab.hypervisors._xen_profile import refuses as why

    return why(profile)


@contextmanager
def connect(name: str, settings: Settings) -> Iterator[XenHost]:
    """Log in to the dom0 and look whether it can be used. Raises `HostError`."""
    from lab.contracts import Endpoint, SshLogin
    from lab.errors import HostError
    from lab.hypervisors._xen_dom0 import Dom0
    from lab.hypervisors._xen_host import Places, connect_to

    if settings.made_from:
        raise HostError(f"{name} is a host that the lab makes first; only what makes it can connect to it")
    dom0 = Dom0(
        endpoint=Endpoint(settings.address, settings.port),
        login=SshLogin(settings.user, Path(settings.private_key), settings.host_key),
        bridge=settings.bridge,
        guest_addresses=tuple(settings.guest_addresses),
        guest_prefix=settings.guest_prefix,
        gateway=settings.gateway,
    )
    with connect_to(name, dom0, Places(settings.folder, settings.log_folder)) as host, ExitStack() as open_peers:
        for peer in settings.peers:
            where = replace(
                dom0,
                endpoint=Endpoint(peer.address, peer.port),
                login=replace(dom0.login, host_key=peer.host_key),
            )
            places = Places(peer.folder or settings.folder, peer.log_folder or settings.log_folder)
            try:
                host.take_along(open_peers.enter_context(connect_to(peer.name, where, places)))
            except HostError as reason:
                host.misses(peer.name, reason)  # the host itself is none the worse
        yield host


def made_from(settings: Settings) -> str:
    """The recipe of the image that the lab makes this host from; empty for one that somebody set up."""
    return settings.made_from


@contextmanager
def connect_made(name: str, settings: Settings, dom0: Dom0) -> Iterator[XenHost]:
    """Log in to a host that the lab has made. Raises `HostError`, `MachineVanished`."""
    from lab.hypervisors._xen_host import Places, connect_to

    with connect_to(name, dom0, Places(settings.folder, settings.log_folder)) as host:
        yield host
