"""Which files of an inventory's folder Ansible reads, and whether its answer can be kept.

An inventory source is a file whose name begins with `hosts` (static, or a program) or a YAML file that names a
`plugin:`. `group_vars/` and `host_vars/` beside them count as everywhere with Ansible.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

VARIABLE_FOLDERS = ("group_vars", "host_vars")

_FORMAT = 1
# What Ansible's own INVENTORY_IGNORE_EXTS lists, and what never holds hosts.
_NO_SOURCE = frozenset((".pyc", ".pyo", ".swp", ".bak", ".orig", ".cfg", ".retry", ".md", ".txt", ".rst", ".rpm"))
_NAMES_A_PLUGIN = re.compile(rb"""(?m)^\s*[{"']*plugin["']?\s*:""")
_MAY_CHANGE = (b"{{", b"{%", b"$ANSIBLE_VAULT", b"!vault")
# Variables that change how Ansible looks, not what it answers.
_HARMLESS = frozenset(("ANSIBLE_NOCOLOR", "ANSIBLE_FORCE_COLOR", "ANSIBLE_NOCOWS", "ANSIBLE_DEPRECATION_WARNINGS"))


def sources(folder: Path) -> tuple[Path, ...]:
    """The inventory sources of a folder, sorted; Ansible lets later ones win. Raises `OSError`."""
    return tuple(path for path in sorted(folder.iterdir()) if _is_source(path))


def _is_source(path: Path) -> bool:
    if path.name.startswith(".") or path.name.endswith("~") or path.suffix in _NO_SOURCE or not path.is_file():
        return False
    return path.name.startswith("hosts") or (path.suffix in (".yaml", ".yml") and names_a_plugin(path))


def names_a_plugin(path: Path) -> bool:
    """Whether a file configures an inventory plugin instead of listing hosts."""
    with path.open("rb") as file:
        return _NAMES_A_PLUGIN.search(file.read(1 << 16)) is not None


def is_program(path: Path) -> bool:
    """Whether Ansible would run the file to ask it for hosts."""
    return os.access(path, os.X_OK)


def digest(folder: Path, files: tuple[Path, ...]) -> str | None:
    """A key for what Ansible answers, or `None` when that can change or is secret although no file changes.

    Never kept: programs, plugins, templates, vaults, and whatever a configuration of Ansible's own may add.
    Raises `OSError`.
    """
    if _is_configured(folder):
        return None
    whole = hashlib.sha256()
    versions = f"{_FORMAT} ansible-core {metadata.version('ansible-core')} python {platform.python_version()}"
    whole.update(versions.encode())
    for path in (*files, *_variable_files(folder)):
        content = path.read_bytes()
        if any(mark in content for mark in _MAY_CHANGE):
            return None
        if path in files and (is_program(path) or _NAMES_A_PLUGIN.search(content)):
            return None
        name = os.fsencode(path.relative_to(folder))
        whole.update(b"\0%d %d\0%b%b" % (len(name), len(content), name, content))
    return whole.hexdigest()


def _variable_files(folder: Path) -> Iterator[Path]:
    for name in VARIABLE_FOLDERS:
        for top, folders, files in os.walk(folder / name, followlinks=True):
            folders.sort()
            yield from (Path(top, file) for file in sorted(files))


def _is_configured(folder: Path) -> bool:
    # https://docs.ansible.com/ansible-core/2.19/reference_appendices/config.html: where it looks for ansible.cfg
    places = (folder / "ansible.cfg", Path.home() / ".ansible.cfg", Path("/etc/ansible/ansible.cfg"))
    variables = {name for name in os.environ if name.startswith("ANSIBLE_")} - _HARMLESS
    return bool(variables) or any(place.exists() for place in places)
