"""Libvirt's XML as values: written by lxml from a tree of elements, so that no value can become markup."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lab.errors import HypervisorRefused, MissingExtra

Value = str | int
NAMESPACE = "urn:interop-lab:machine:1"
PREFIX = "lab"
_LARGEST = 8 << 20
# XML 1.0, 2.2: what no document can hold, in whatever notation.
_UNWRITABLE = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Element:
    """One element: its attributes, then its text or its children; an attribute that is `None` is left out."""

    tag: str
    attributes: Mapping[str, Value | None] = field(default_factory=dict)
    inside: Sequence[Element] | Value = ()


def element(tag: str, *inside: Element, text: Value | None = None, **attributes: Value | None) -> Element:
    """Shorter to write; a last underscore of an attribute's name is taken off, for `type_` and `class_`."""
    named = {name.rstrip("_"): value for name, value in attributes.items()}
    return Element(tag, named, inside if text is None else text)


def text(root: Element) -> str:
    """The document. Raises `HypervisorRefused` when a value cannot be in any XML, `MissingExtra`."""
    etree = _etree()
    return str(etree.tostring(_built(etree, root), encoding="unicode", pretty_print=True))


def read(document: str) -> Any:
    """The root of what libvirt wrote. Raises `HypervisorRefused` when it is no XML."""
    etree = _etree()
    # It comes from a host that others administer: nothing outside of it is read, and nothing in it grows.
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    if len(document) > _LARGEST:
        raise HypervisorRefused(f"libvirt's XML has more than {_LARGEST >> 20} MiB")
    try:
        return etree.fromstring(document.encode(), parser)
    except etree.XMLSyntaxError as reason:
        raise HypervisorRefused(f"libvirt's answer is no XML: {reason}") from reason


def with_other_disks(document: str, paths: Mapping[str, str]) -> str:
    """A domain whose disks have other files: by the path of the old one, with nothing behind the new one."""
    root = read(document)
    for disk in root.iterfind("devices/disk"):
        source = disk.find("source")
        if source is None or source.get("file") not in paths:
            continue
        source.set("file", paths[source.get("file")])
        for behind in disk.findall("backingStore"):
            disk.remove(behind)
    return str(_etree().tostring(root, encoding="unicode"))


def _built(etree: Any, wanted: Element) -> Any:
    prefix, _, local = wanted.tag.rpartition(":")
    # Only the lab's own elements have a prefix.
    made = etree.Element(f"{{{NAMESPACE}}}{local}", nsmap={PREFIX: NAMESPACE}) if prefix else etree.Element(local)
    for name, value in wanted.attributes.items():
        if value is not None:
            made.set(name, _writable(value))
    if isinstance(wanted.inside, str | int):
        made.text = _writable(wanted.inside)
    else:
        made.extend(_built(etree, child) for child in wanted.inside)
    return made


def _writable(value: Value) -> str:
    said = str(value)
    if _UNWRITABLE.search(said):
        raise HypervisorRefused(f"{said[:80]!r} cannot be written into XML")
    return said


def _etree() -> Any:
    try:
        return importlib.import_module("lxml.etree")  # untyped, and only whoever uses this driver has it
    except ImportError as reason:
        raise MissingExtra("the libvirt driver", "libvirt") from reason
