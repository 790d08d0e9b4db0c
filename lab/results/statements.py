"""What vendors state about a feature: read from `inventories/statements/<vendor>.yaml`, looked up by a long key.

The key is long on purpose (hypervisor, host release, guest, guest release, architecture, mode, feature), because
support differs by each of them. A statement speaks only of the pairs that its patterns name: one about KVM
says nothing of QEMU in software emulation. No statement found is *unknown*, never *unsupported*.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from lab.errors import ConfigurationError
from lab.results.documents import CellDocument
from lab.results.record import FileModel


class Expected(StrEnum):
    """What the vendors lead one to expect of a feature in a cell."""

    SUPPORTED = "supported"
    LIMITED = "limited"
    UNSUPPORTED = "unsupported"
    UNKNOWN = "unknown"


class Basis(StrEnum):
    """How strong a statement is. Only the first two are promises; the others are shown and decide nothing."""

    VENDOR_TABLE = "vendor-table"
    VENDOR_LIMIT = "vendor-limit"
    VENDOR_TEMPLATE = "vendor-template"
    VENDOR_TEST_SUITE = "vendor-test-suite"
    DRIVER_DATABASE = "driver-database"
    BUILD_LIST = "build-list"

    @property
    def is_promise(self) -> bool:
        return self in (Basis.VENDOR_TABLE, Basis.VENDOR_LIMIT)


Patterns = tuple[str, ...]  # shell patterns, compared without regard to case


class Source(FileModel):
    """Where a statement was read."""

    title: str
    reference: str  # a URL, or repository:path
    as_of: str  # the source's own date or release


class Entry(FileModel):
    """A statement as it stands in a file."""

    hypervisor: Patterns
    host_release: Patterns = ("*",)
    guest: Patterns = ("*",)
    guest_release: Patterns = ("*",)
    arch: Patterns = ("*",)
    mode: Patterns = ("*",)  # firmware or virtualisation mode: "uefi", "bios", "pv", "pvh", "hvm"
    features: tuple[str, ...]
    says: Literal["supported", "limited", "unsupported"]
    words: str = ""  # the vendor's own words for the level, or its condition
    basis: Basis = Basis.VENDOR_TABLE
    source: str


class StatementFile(FileModel):
    """inventories/statements/<vendor>.yaml"""

    schema_version: Literal[1] = Field(alias="schema")
    vendor: str
    sources: dict[str, Source]
    statements: tuple[Entry, ...]


@dataclass(frozen=True)
class PairKey:
    """What a statement must be about to say something of a cell; an empty part is not known."""

    hypervisor: str  # "kvm", "qemu-tcg", "uml", "xen", "hyperv", "vmware" ...
    host_release: str
    guest: str  # the `ID` of os-release(5)
    guest_release: str  # its `VERSION_ID`
    arch: str
    mode: str


@dataclass(frozen=True)
class Statement:
    """What one vendor says about one feature of one kind of pair."""

    vendor: str
    feature: str
    says: Expected
    words: str
    basis: Basis
    source: Source
    about: Entry

    def is_about(self, key: PairKey) -> bool:
        """Whether every part of the key is one that the statement names."""
        about = self.about
        pairs = (
            (key.hypervisor, about.hypervisor),
            (key.host_release, about.host_release),
            (key.guest, about.guest),
            (key.guest_release, about.guest_release),
            (key.arch, about.arch),
            (key.mode, about.mode),
        )
        return all(_matches(value, patterns) for value, patterns in pairs)

    def as_json(self) -> dict[str, str]:
        """The statement in the document of `lab verdict --json`."""
        return {
            "vendor": self.vendor,
            "says": self.says.value,
            "words": self.words,
            "basis": self.basis.value,
            "source": self.source.title,
            "reference": self.source.reference,
            "as_of": self.source.as_of,
        }


class Statements:
    """All statements of all vendors."""

    def __init__(self, statements: Iterable[Statement] = ()) -> None:
        self._by_feature: dict[str, list[Statement]] = {}
        for statement in statements:
            self._by_feature.setdefault(statement.feature, []).append(statement)
        self._cache: dict[PairKey, Mapping[str, tuple[Statement, ...]]] = {}

    def __len__(self) -> int:
        return sum(len(found) for found in self._by_feature.values())

    def features(self) -> Sequence[str]:
        """The features that anybody states anything about."""
        return sorted(self._by_feature)

    def about(self, key: PairKey) -> Mapping[str, tuple[Statement, ...]]:
        """Every statement about such a pair, by feature; a feature that nobody speaks of is not in it."""
        if key not in self._cache:
            found = {
                feature: tuple(statement for statement in statements if statement.is_about(key))
                for feature, statements in self._by_feature.items()
            }
            self._cache[key] = {feature: statements for feature, statements in found.items() if statements}
        return self._cache[key]


@dataclass(frozen=True)
class Expectation:
    """What several statements say together."""

    expected: Expected
    conflict: bool  # two promises disagree; then nothing is expected and all of them are shown


def expectation(statements: Iterable[Statement]) -> Expectation:
    """What to expect after these statements. Only promises count; a template or a driver list is none."""
    said = {statement.says for statement in statements if statement.basis.is_promise}
    if len(said) == 1:
        return Expectation(said.pop(), conflict=False)
    return Expectation(Expected.UNKNOWN, conflict=bool(said))


def load(folder: Path) -> Statements:
    """The statements of a folder; one that is not there holds none.

    Raises `ConfigurationError` with file and key.
    """
    return Statements(_read_folder(folder))


def _read_folder(folder: Path) -> list[Statement]:
    found: list[Statement] = []
    for path in sorted(folder.glob("*.yaml")) if folder.is_dir() else ():
        found += _read(path)
    return found


def beside(inventories: Iterable[str]) -> Statements:
    """The statements that lie next to these inventories (`inventories/statements` for `inventories/local`).

    Raises `ConfigurationError`.
    """
    folders = {Path(inventory).resolve().parent / "statements" for inventory in inventories}
    return Statements(statement for folder in sorted(folders) for statement in _read_folder(folder))


def _read(path: Path) -> list[Statement]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        # The pure parser reads YAML 1.2, where `no` is a word and not false.
        data: Any = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
        # Strict models take enumerations and tuples from JSON only, so let pydantic read this as JSON.
        file = StatementFile.model_validate_json(json.dumps(data, default=str))
    except ValidationError as reason:
        first = reason.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(f"{path}: {place}: {first['msg']}") from reason
    except (YAMLError, OSError, UnicodeDecodeError) as reason:
        raise ConfigurationError(f"{path}: {reason}") from reason
    return [
        statement for number, entry in enumerate(file.statements) for statement in _spread(path, file, number, entry)
    ]


def _spread(path: Path, file: StatementFile, number: int, entry: Entry) -> list[Statement]:
    source = file.sources.get(entry.source)
    if source is None:
        raise ConfigurationError(
            f"{path}: statements.{number}.source: no source {entry.source!r}",
            hint=f"known: {', '.join(sorted(file.sources)) or 'none'}",
        )
    return [
        Statement(file.vendor, feature, Expected(entry.says), entry.words, entry.basis, source, entry)
        for feature in entry.features
    ]


def _matches(value: str, patterns: Patterns) -> bool:
    # What is not known can only be covered by a statement that leaves it open.
    return any(pattern == "*" or (value != "" and fnmatchcase(value.lower(), pattern.lower())) for pattern in patterns)


_HYPERVISORS = {
    "user-mode linux": "uml",
    "vmware esxi": "vmware",
    "hyper-v": "hyperv",
    "xenserver": "xenserver",
    "xcp-ng": "xcp-ng",
    "xen": "xen",
}


def pair_key(document: CellDocument) -> PairKey:
    """The key of what really ran, from the facts that the host and the guest told."""
    host, guest = document.host, document.guest or {}
    product = host.product.lower() if host else ""
    hypervisor = _HYPERVISORS.get(product, product.replace(" ", "-"))
    if host and product == "qemu":
        # QEMU without an accelerator is another hypervisor than KVM to a vendor: none promises anything about it.
        hypervisor = "kvm" if host.accelerator == "kvm" else f"qemu-{host.accelerator or 'tcg'}"
    release = ""
    if host:
        release = str(host.details.get("os", "")) or ("" if product == "qemu" else host.version)
    return PairKey(
        hypervisor=hypervisor,
        host_release=release,
        guest=_text(guest, "os", "id"),
        guest_release=_text(guest, "os", "version"),
        arch=_text(guest, "kernel", "arch"),
        mode=str(document.profile.get("firmware", "")),
    )


def _text(facts: Mapping[str, Any], group: str, key: str) -> str:
    found = facts.get(group)
    value = found.get(key) if isinstance(found, dict) else None
    return value if isinstance(value, str) else ""
