"""Reads `profiles.yaml`: named virtual hardware, where `like` takes the rest from another profile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from lab.contracts import NAME_PATTERN, Firmware, Profile
from lab.inventory.models import DiskModel, NicModel
from lab.inventory.positions import Document, Place, Spot, read
from lab.inventory.problems import Problems, unknown
from lab.inventory.validation import check, shown
from lab.results.record import FileModel

NOT_A_NAME = "not a name: small letters, digits, dots and hyphens, at most 64, first and last a letter or digit"


class ProfileFields(FileModel):
    """The keys of one profile once `like` is followed."""

    firmware: Firmware  # none: the hypervisor starts the kernel
    chipset: Literal["pc", "q35", "microvm", "none", "xenpv", "xenpvh", "xenhvm"]  # of the machine
    disk: DiskModel  # model of every disk
    nic: NicModel  # model of the network card
    vcpus: int = Field(ge=1, le=512)  # processors
    memory_mib: int = Field(ge=16, le=1 << 24)  # a guest that needs more gets more
    max_vcpus: int = Field(default=0, ge=0, le=512)  # processors may be plugged in up to this number; 0: none
    max_memory_mib: int = Field(default=0, ge=0, le=1 << 24)  # memory may be plugged in up to this size; 0: none
    tpm: bool = False  # a TPM 2.0
    secure_boot: bool = False  # the firmware starts what a key that it holds has signed, and nothing else

    @field_validator("max_vcpus", "max_memory_mib")
    @classmethod
    def _is_above_the_start(cls, value: int, info: ValidationInfo) -> int:
        start = (info.field_name or "").removeprefix("max_")
        if value and value <= info.data.get(start, 0):
            raise ValueError(
                f"{value} is not more than {start}, which is {info.data[start]}; without it nothing is added"
            )
        return value

    @field_validator("secure_boot")
    @classmethod
    def _needs_uefi(cls, value: bool, info: ValidationInfo) -> bool:
        firmware = info.data.get("firmware", Firmware.UEFI)
        if value and firmware is not Firmware.UEFI:
            raise ValueError(f"only UEFI knows signatures, and the firmware is {firmware}")
        return value


def read_profiles(path: Path, problems: Problems) -> Mapping[str, Profile | None] | None:
    """The profiles of a file by name, or `None` when it cannot be read; one with a problem is there and is `None`."""
    document = read(path, problems)
    if document is None:
        return None
    if not isinstance(document.value, dict):
        problems.add(path, 1, "", f"wanted a mapping of profiles, got {shown(document.value)}")
        return None
    refuse_tags(document, problems)
    return {name: _profile(name, document, problems) for name in document.value}


def refuse_tags(document: Document, problems: Problems) -> None:
    """A tag means nothing in the files that are the lab's alone."""
    for place, tag in document.tags.items():
        spot = document.spot(place)
        problems.add(spot.path, spot.line, spot.label, f"the tag {tag} means nothing here")


def _profile(name: str, document: Document, problems: Problems) -> Profile | None:
    if not NAME_PATTERN.fullmatch(name):
        problems.add(document.path, document.line((name,)), name, NOT_A_NAME)
        return None
    chain = _chain(name, document, problems)
    if chain is None:
        return None
    values: dict[str, Any] = {}
    owner: dict[str, str] = {}
    for link in chain:
        for key, value in document.value[link].items():
            if key != "like" and key not in values:
                values[key] = value
                owner[key] = link

    def locate(place: Place) -> Spot:
        return document.spot((owner.get(str(place[0]), name), *place) if place else (name,))

    fields = check(ProfileFields, values, locate, problems)
    return None if fields is None else Profile(name=name, **dict(fields))


def _chain(name: str, document: Document, problems: Problems) -> list[str] | None:
    """A profile and those it is like, nearest first; `None` and a problem where that leads nowhere."""
    chain: list[str] = []
    for link, wrong in _links(name, document):
        if wrong:
            place = (link, "like") if isinstance(document.value.get(link), dict) else (link,)
            spot = document.spot(place)
            problems.add(spot.path, spot.line, spot.label, wrong)
            return None
        chain.append(link)
    return chain


def _links(name: str, document: Document) -> Iterator[tuple[str, str]]:
    """Each profile on the way with what is wrong with it, the latter mostly empty."""
    seen: list[str] = []
    while True:
        fields = document.value[name]
        if not isinstance(fields, dict):
            yield name, f"wanted a mapping, got {shown(fields)}"
            return
        seen.append(name)
        if "like" not in fields:
            yield name, ""
            return
        like = fields["like"]
        if not isinstance(like, str):
            yield name, f"wanted the name of a profile, got {shown(like)}"
            return
        if like in seen:
            yield name, "a cycle: " + " is like ".join((*seen[seen.index(like) :], like))
            return
        if like not in document.value:
            yield name, unknown("profile", like, document.value)
            return
        yield name, ""
        name = like
