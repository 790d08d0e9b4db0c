"""Libvirt: QEMU and KVM through a libvirtd of the lab's own, this machine's, or one that is reached over SSH."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lab.contracts import Profile, Realness

if TYPE_CHECKING:  # an inventory that names this driver must not pay for what only a connection needs
    from lab.hypervisors._libvirt_host import LibvirtHost
    from lab.hypervisors._reached_host import ReachedHost

REALNESS = Realness.REAL
RUNS_HERE = True


class Settings(BaseModel):
    """Of a host: its `lab_*` variables."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    made_from: Literal["", "kvm-host"] = Field(
        default="",
        description="the recipe of an image, and the lab makes this host itself on this machine, on an emulated "
        "processor: then nothing is said of how to reach it",
    )
    uri: str = Field(
        default="",
        pattern=r"^(qemu(\+ssh)?://[A-Za-z0-9@.:_-]*/(session|system)"
        r"|qemu\+unix:///(session|system)(\?socket=/[A-Za-z0-9._/+-]{1,100})?)?$",
        description="of a libvirt that somebody set up, such as qemu:///system, qemu+ssh://lab@kvm-01/system or "
        "qemu+unix:///system?socket=/run/other/libvirt-sock; empty: the lab starts an unprivileged libvirtd of its own",
    )
    private_key: str = Field(
        default="", description="absolute path on this machine of a key without passphrase, with qemu+ssh"
    )
    host_key: str = Field(
        default="",
        pattern=r"^(ssh-ed25519 [A-Za-z0-9+/]{40,200}={0,2})?$",
        description='public host key, "ssh-ed25519 AAAA...", with qemu+ssh; there is no trust on first use',
    )
    accelerator: Literal["auto", "tcg", "kvm"] = Field(
        default="auto",
        description="auto takes KVM where libvirt offers it; on this machine only where a test program ran under it",
    )
    cpu_model: str = Field(
        default="", pattern=r"^[A-Za-z0-9._-]{0,64}$", description="libvirt's name of one; empty: by the accelerator"
    )
    network: str = Field(
        default="user",
        pattern=r"^(user|(network|bridge):[A-Za-z0-9][A-Za-z0-9_.-]{0,60})$",
        description="of guests: user (QEMU's own), network:NAME of libvirt, or bridge:NAME of the host",
    )
    folder: str = Field(
        default="",
        pattern=r"^(/[A-Za-z0-9._/+-]{1,200})?$",
        description="at the host, for disks and images; with a uri /var/lib/libvirt/images/interop-lab",
    )
    migration: Literal["direct", "tunnelled"] = Field(
        default="direct",
        description="direct: the memory of a machine that moves goes from QEMU to QEMU; tunnelled: through the "
        "connection of the two libvirtd, which carries no disks",
    )
    ssh_port: int = Field(
        default=0, ge=0, le=65535, description="fixed port of 127.0.0.1 for the guest's SSH; 0: any free one"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Settings:
        over_ssh = self.uri.startswith("qemu+ssh:")
        keys = {"private_key": self.private_key, "host_key": self.host_key}
        wrong = [f"lab_{key}" for key, value in keys.items() if bool(value) != over_ssh]
        if wrong:
            raise ValueError(f"{', '.join(wrong)}: {'missing' if over_ssh else 'only with qemu+ssh'}")
        if over_ssh and self.network == "user":
            raise ValueError(
                "lab_network: the ports of QEMU's own network are on the far host; name a network or bridge"
            )
        if self.made_from and (self.uri or self.folder or self.network != "user"):
            raise ValueError("lab_uri, lab_network, lab_folder: of a host that the lab makes")
        if ".." in self.folder.split("/"):
            raise ValueError("lab_folder: no .. in it")
        return self


def refuses(profile: Profile) -> str | None:
    """Why no libvirt host of the lab can make that hardware, or `None`."""
    from lab.hypervisors._libvirt_domain import refuses as why

    return why(profile)


@contextmanager
def connect(name: str, settings: Settings) -> Iterator[LibvirtHost]:
    """Connect to libvirt, or start one. Raises `HostError`, `MissingTool`, `MissingExtra`."""
    from lab.errors import HostError
    from lab.hypervisors._libvirt_host import connect_to

    if settings.made_from:
        raise HostError(f"{name} is a host that the lab makes first; only what makes it can connect to it")
    with connect_to(name, settings) as host:
        yield host


def made_from(settings: Settings) -> str:
    """The recipe of the image that the lab makes this host from; empty for one that somebody set up."""
    return settings.made_from


@contextmanager
def connect_made(name: str, settings: Settings, reached: ReachedHost) -> Iterator[LibvirtHost]:
    """Connect to the libvirt of a host that the lab has made. Raises `HostError`, `MissingTool`, `MissingExtra`."""
    from lab.hypervisors._libvirt_host import connect_to

    where, login = reached.endpoint, reached.login
    found = {
        "made_from": "",
        "uri": f"qemu+ssh://{login.user}@{where.host}:{where.port}/system",
        "private_key": str(login.private_key),
        "host_key": login.host_key,
        "network": "network:default",
    }
    settled = Settings(**{**settings.model_dump(), **found})
    with connect_to(name, settled, realness=reached.realness, maker=reached.maker) as host:
        yield host
