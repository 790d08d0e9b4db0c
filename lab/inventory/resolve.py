"""Asks Ansible for the hosts of an inventory and their `lab_*` variables, and keeps the answer where it may.

`ansible-inventory` merges files, group_vars, plugins and programs, and leaves templates and single vaulted values as
they are; those are resolved by a second call, and only where there are any.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import locations, log, process
from lab.errors import LabError
from lab.inventory import sources
from lab.inventory.problems import Problems

GROUP = "hypervisors"
PREFIX = "lab_"
TIMEOUT_S = 120.0

_log = log.get(__name__)

_QUIET = {
    # A source that cannot be read is an error and not a warning.
    "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true",
    "ANSIBLE_NOCOLOR": "true",
    "LC_ALL": "C.UTF-8",  # Ansible refuses to start without UTF-8
    "ANSIBLE_DEPRECATION_WARNINGS": "false",
    "ANSIBLE_LOAD_CALLBACK_PLUGINS": "false",
    "ANSIBLE_LOG_PATH": os.devnull,  # a decrypted value must not reach a log file
}
_UNPARSED = re.compile(r"Failed to parse inventory with '(\w+)' plugin: (.*)")
_ANSWER = re.compile(r"(?m)^(\S+) \| (\w+)!? => (?=\{)")
_TASK_FAILED = re.compile(r"^.*Error while resolving value for 'msg': ", re.DOTALL)


@dataclass(frozen=True)
class ResolvedHost:
    """A host as Ansible sees it."""

    groups: tuple[str, ...]  # nearest first, without `all`
    variables: Mapping[str, Any]  # those of the lab, with their prefix
    protected: frozenset[str] = frozenset()  # variables that were vaulted or templated


Resolved = Mapping[str, ResolvedHost]


def ask_ansible(folder: Path, problems: Problems) -> Resolved | None:
    """The hosts of the group `hypervisors`, or `None` and a problem; from the cache where that may be."""
    try:
        files = sources.sources(folder)
        key = sources.digest(folder, files)
    except OSError as reason:
        problems.add(Path(reason.filename or folder), 0, "", f"cannot be read: {reason.strerror}")
        return None
    kept = None if key is None else _kept(key)
    if kept is not None:
        return kept
    fresh = _ask(folder, files, problems)
    if key is not None and fresh is not None:
        _keep(key, fresh)
    return fresh


# ---------------------------------------------------------------------------------------------------------
# The cache


def _place(key: str) -> Path:
    return locations.cache() / "inventories" / f"{key}.json"


def _kept(key: str) -> Resolved | None:
    try:
        hosts = json.loads(_place(key).read_bytes())
        return {name: ResolvedHost(tuple(host["groups"]), dict(host["variables"])) for name, host in hosts.items()}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as reason:
        _log.warning("inventory.cache-unusable", key=key, reason=reason)
        return None


def _keep(key: str, hosts: Resolved) -> None:
    content = {name: {"groups": host.groups, "variables": host.variables} for name, host in hosts.items()}
    place = _place(key)
    part = place.with_suffix(f".{os.getpid()}")
    try:
        place.parent.mkdir(exist_ok=True)
        part.write_text(json.dumps(content))
        part.replace(place)
    except OSError as reason:
        # The cache saves time only; a full disk is for whoever needs the disk to report.
        _log.warning("inventory.not-cached", reason=reason)


# ---------------------------------------------------------------------------------------------------------
# Ansible


def _ask(folder: Path, files: Sequence[Path], problems: Problems) -> Resolved | None:
    listed = _ansible(folder, files, ("inventory", "--list"), problems)
    if listed is None:
        return None
    if listed.status != 0:
        problems.add(files[0] if len(files) == 1 else folder, 0, "", f"Ansible cannot read it: {_why(listed, files)}")
        return None
    try:
        answer = json.loads(listed.stdout)
        hosts = _hosts(answer)
    except (ValueError, KeyError, TypeError, AttributeError) as reason:
        problems.add(folder, 0, "", f"ansible-inventory answered something else than an inventory: {reason}")
        return None
    return _resolve_rest(folder, files, hosts, problems)


def _ansible(folder: Path, files: Sequence[Path], words: Sequence[str], problems: Problems) -> process.Finished | None:
    # The Ansible of the environment that runs us, whatever PATH says; -P: and not a module that lies in the folder.
    argv = [sys.executable, "-P", "-m", "ansible", *words]
    for path in files:
        argv += ["-i", str(path.absolute())]
    try:
        # In the folder, so that an ansible.cfg beside the inventory counts.
        return process.run(argv, timeout_s=TIMEOUT_S, cwd=folder, environment=_QUIET)
    except LabError as reason:
        problems.add(folder, 0, "", f"Ansible cannot be asked: {reason.what}")
        return None


def _why(finished: process.Finished, files: Sequence[Path]) -> str:
    """Ansible's own reason, from the plugin that was meant to read the source."""
    said: dict[str, str] = dict(_UNPARSED.findall(finished.stderr))
    for plugin, not_meant in (("script", ""), ("auto", "no root 'plugin' key"), ("yaml", "Plugin configuration")):
        text = said.get(plugin, "")
        if text and not (not_meant and text.startswith(not_meant)):
            return text
    errors = [line for line in finished.stderr.splitlines() if "ERROR" in line]
    ini = said.get("ini", "") if any(path.suffix in ("", ".ini") for path in files) else ""
    return ini or (errors[-1] if errors else finished.stderr.strip()[-300:])


def _hosts(answer: Mapping[str, Any]) -> dict[str, ResolvedHost]:
    hostvars = answer["_meta"]["hostvars"]
    hosts = {}
    for name in _members(answer, GROUP):
        variables = {key: value for key, value in hostvars.get(name, {}).items() if key.startswith(PREFIX)}
        hosts[name] = ResolvedHost(_groups_of(answer, name), variables)
    return hosts


def _members(answer: Mapping[str, Any], group: str) -> list[str]:
    """The hosts of a group and of those under it, each once."""
    names: dict[str, None] = {}
    waiting, seen = [group], set()
    while waiting:
        current = waiting.pop(0)
        if current in seen:
            continue
        seen.add(current)
        names.update(dict.fromkeys(answer.get(current, {}).get("hosts", ())))
        waiting += answer.get(current, {}).get("children", ())
    return list(names)


def _groups_of(answer: Mapping[str, Any], host: str) -> tuple[str, ...]:
    names = [name for name, group in answer.items() if name != "_meta" and host in group.get("hosts", ())]
    for name in names:  # grows while it is walked: the groups around the groups
        around = (outer for outer, group in answer.items() if outer != "_meta" and name in group.get("children", ()))
        names += [outer for outer in around if outer not in names]
    return tuple(name for name in names if name != "all")


def _resolve_rest(
    folder: Path, files: Sequence[Path], hosts: dict[str, ResolvedHost], problems: Problems
) -> Resolved | None:
    """Let Ansible work out what `--list` leaves: templates, single vaulted values."""
    open_keys = {
        name: frozenset(key for key, value in host.variables.items() if _is_open(value)) for name, host in hosts.items()
    }
    keys = sorted(frozenset().union(*open_keys.values()))
    worked_out = _work_out(folder, files, keys, problems) if keys else {}
    if worked_out is None:
        return None
    resolved = {}
    for name, host in hosts.items():
        answers = worked_out.get(name, {})
        if isinstance(answers, str):
            problems.add(folder, 0, name, f"Ansible cannot resolve its variables: {answers}")
            continue
        variables = {
            key: answers.get(key) if key in open_keys[name] else _without_marks(value)
            for key, value in host.variables.items()
        }
        resolved[name] = ResolvedHost(host.groups, variables, open_keys[name])
    return resolved if len(resolved) == len(hosts) else None


def _work_out(
    folder: Path, files: Sequence[Path], keys: Sequence[str], problems: Problems
) -> Mapping[str, dict[str, Any] | str] | None:
    """For each host the values of these variables, or Ansible's reason why it has none."""
    mine = "hostvars[inventory_hostname]"
    templates = {key: f"{{{{ {mine}['{key}'] if '{key}' in {mine} else None }}}}" for key in keys if key.isidentifier()}
    arguments = json.dumps({"msg": templates})
    finished = _ansible(folder, files, ("adhoc", GROUP, "-m", "ansible.builtin.debug", "-a", arguments), problems)
    if finished is None:
        return None
    answers: dict[str, dict[str, Any] | str] = {}
    decoder = json.JSONDecoder()
    for found in _ANSWER.finditer(finished.stdout):
        result, _ = decoder.raw_decode(finished.stdout, found.end())
        said = result.get("msg")
        answers[found[1]] = said if isinstance(said, dict) else _TASK_FAILED.sub("", str(said))
    if not answers:
        problems.add(folder, 0, "", f"Ansible cannot resolve its variables: {finished.stderr.strip()[-300:]}")
        return None
    return answers


def _is_open(value: Any) -> bool:
    if isinstance(value, str):
        return "{{" in value or "{%" in value
    if isinstance(value, dict):
        if "__ansible_unsafe" in value:
            return False
        return "__ansible_vault" in value or any(_is_open(item) for item in value.values())
    return isinstance(value, list) and any(_is_open(item) for item in value)


def _without_marks(value: Any) -> Any:
    """A value without the wrapping in which ansible-inventory shows an `!unsafe` text."""
    if isinstance(value, dict):
        if set(value) == {"__ansible_unsafe"}:
            return value["__ansible_unsafe"]
        return {key: _without_marks(item) for key, item in value.items()}
    return [_without_marks(item) for item in value] if isinstance(value, list) else value
