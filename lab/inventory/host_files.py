"""Reads the plain files of an Ansible inventory for the lines on which hosts and variables stand, and for slips.

Values come from Ansible; this only tells where a person wrote them. Order of precedence as in
https://docs.ansible.com/ansible-core/2.19/playbook_guide/playbooks_variables.html#variable-precedence
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.inventory import sources
from lab.inventory.positions import Document, Place, Spot, parse, read_bytes
from lab.inventory.problems import Problems, did_you_mean
from lab.inventory.validation import shown

_GROUP_KEYS = ("children", "hosts", "vars")
_VAULT = b"$ANSIBLE_VAULT"
_RANGE = re.compile(r"\\\[[^\]]*:[^\]]*\\?\]")


@dataclass
class HostFiles:
    """The plain files of an inventory's folder."""

    folder: Path
    files: tuple[Path, ...] = ()
    static: list[Document] = field(default_factory=list)  # inventory sources
    variables: dict[tuple[str, str], list[Document]] = field(default_factory=dict)  # ("group_vars", name)
    inside: dict[str, set[str]] = field(default_factory=dict)  # the groups that each group contains

    def spot(self, host: str, groups: tuple[str, ...], place: Place) -> Spot:
        """Where the variable at the head of `place` of that host is written, else where the host is."""
        for document, at, owner in self._holders(host, groups) if place else ():
            held = document.at(at)
            if isinstance(held, dict) and place[0] in held:
                return Spot(document.path, document.line((*at, *place)), f"{owner}{_tail(place)}")
        for document, at, _ in self._host_entries(host):
            return Spot(document.path, document.line(at), f"{host}{_tail(place)}")
        return Spot(self.files[0] if len(self.files) == 1 else self.folder, 0, f"{host}{_tail(place)}")

    def holds_plain(self, host: str, groups: tuple[str, ...], key: str) -> bool:
        """Whether the variable stands, readable for everyone, in a plain file."""
        for document, at, _ in self._holders(host, groups):
            held = document.at(at)
            if isinstance(held, dict) and key in held:
                return document.tags.get((*at, key)) != "!vault"
        return False

    def _holders(self, host: str, groups: tuple[str, ...]) -> Iterator[tuple[Document, Place, str]]:
        """The mappings of variables that reach a host, strongest first, with whose they are."""
        for document in self.variables.get(("host_vars", host), ()):
            yield document, (), host
        yield from self._host_entries(host)
        for group in (*groups, "all"):
            for document in self.variables.get(("group_vars", group), ()):
                yield document, (), group
        for group in (*groups, "all"):
            for document in self.static:
                for at, _ in _groups(document):
                    if at[-1] == group:
                        yield document, (*at, "vars"), group

    def _host_entries(self, host: str) -> Iterator[tuple[Document, Place, str]]:
        for document in self.static:
            for at, content in _groups(document):
                hosts = content.get("hosts") if isinstance(content, dict) else None
                for name in hosts if isinstance(hosts, dict) else ():
                    if name == host or ("[" in name and _range(name).fullmatch(host)):
                        yield document, (*at, "hosts", name), name


def _tail(place: Place) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place)


def _range(name: str) -> re.Pattern[str]:
    """A pattern for `kvm[01:20]`, which Ansible unfolds to many hosts."""
    return re.compile(_RANGE.sub("[0-9a-zA-Z]+", re.escape(name)))


def _groups(document: Document) -> Iterator[tuple[Place, Any]]:
    """Every group of a source with its place, outer ones first."""
    waiting: list[tuple[Place, Any]] = [((), {"children": document.value})]
    while waiting:
        at, group = waiting.pop(0)
        if at:
            yield at, group
        children = group.get("children") if isinstance(group, dict) else None
        steps: Place = (*at, "children") if at else ()
        waiting += [((*steps, name), child) for name, child in children.items()] if isinstance(children, dict) else ()


def read_host_files(folder: Path, problems: Problems) -> HostFiles:
    """The plain files of a folder; what Ansible would stumble over is a problem."""
    try:
        found = HostFiles(folder, sources.sources(folder))
    except OSError as reason:
        problems.add(Path(reason.filename or folder), 0, "", f"cannot be read: {reason.strerror}")
        return HostFiles(folder)
    if not found.files:
        problems.add(folder / "hosts.yaml", 0, "", "no such file")
    for path in found.files:
        if path.suffix in (".yaml", ".yml", ".json") and not sources.is_program(path):
            _read_source(found, path, problems)
    for kind in sources.VARIABLE_FOLDERS:
        for path in sorted((folder / kind).rglob("*")):
            _read_variables(found, kind, path, problems)
    return found


def _read_source(found: HostFiles, path: Path, problems: Problems) -> None:
    document = _read_plain(path, problems)
    if document is None:
        return
    if not isinstance(document.value, dict):
        problems.add(path, 1, "", f"wanted a mapping of groups, got {shown(document.value)}")
        return
    if "plugin" in document.value:
        return
    found.static.append(document)
    for at, group in _groups(document):
        _judge_group(document, at, group, problems)
        if len(at) > 1:
            _judge_edge(found, document, at, problems)


def _judge_group(document: Document, at: Place, group: Any, problems: Problems) -> None:
    def complain(place: Place, key: str, text: str) -> None:
        problems.add(document.path, document.line(place), key, text)

    name = str(at[-1])
    if group is None:
        return
    if not isinstance(group, dict):
        complain(at, name, f"wanted a group with any of {', '.join(_GROUP_KEYS)}, got {shown(group)}")
        return
    for key, value in group.items():
        here = (*at, key)
        if key not in _GROUP_KEYS:
            complain(here, f"{name}.{key}", f"unknown key of a group{did_you_mean(key, _GROUP_KEYS)}")
        elif value is not None and not isinstance(value, dict):
            complain(here, f"{name}.{key}", f"wanted a mapping, got {shown(value)}")
        elif key == "hosts" and value is not None:
            for host, variables in value.items():
                if variables is not None and not isinstance(variables, dict):
                    complain((*here, host), host, f"wanted a mapping of variables, got {shown(variables)}")


def _judge_edge(found: HostFiles, document: Document, at: Place, problems: Problems) -> None:
    """A group in a group: whether the inner one already contains the outer one."""
    outer, inner = str(at[-3]), str(at[-1])
    way = _way(found.inside, inner, outer)
    if way:
        text = "a cycle of groups: " + " contains ".join((outer, *way))
        problems.add(document.path, document.line(at), inner, text)
    found.inside.setdefault(outer, set()).add(inner)


def _way(inside: Mapping[str, set[str]], start: str, goal: str) -> tuple[str, ...]:
    """The groups from one down to another, both included; nothing when there is no way."""
    waiting: list[tuple[str, ...]] = [(start,)]
    seen = {start}
    while waiting:
        way = waiting.pop(0)
        if way[-1] == goal:
            return way
        for group in sorted(inside.get(way[-1], set()) - seen):
            seen.add(group)
            waiting.append((*way, group))
    return ()


def _read_variables(found: HostFiles, kind: str, path: Path, problems: Problems) -> None:
    if not path.is_file() or path.name.startswith(".") or path.name.endswith("~"):
        return
    if path.suffix not in ("", ".yaml", ".yml", ".json"):
        return
    document = _read_plain(path, problems)
    if document is None:
        return
    parts = path.relative_to(found.folder / kind).parts
    owner = parts[0] if len(parts) > 1 else path.stem if path.suffix else path.name
    found.variables.setdefault((kind, owner), []).append(document)


def _read_plain(path: Path, problems: Problems) -> Document | None:
    """The document in a file, or `None` when it is encrypted as a whole or has a problem."""
    content = read_bytes(path, problems)
    if content is None or content.startswith(_VAULT):
        return None
    return parse(path, content, problems)
