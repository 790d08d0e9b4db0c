"""The way to a libvirt on another machine: OpenSSH, one key, and a host key that was known before."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from lab import locations, process
from lab.errors import HostError

if TYPE_CHECKING:
    from lab.hypervisors.libvirt import Settings

_CONNECT_S = 30


def uri(name: str, settings: Settings) -> str:
    """The URI with all that libvirt has to know. Raises `HostError`, `MissingTool`."""
    program = process.find("ssh", package="openssh-client")
    parts = urlsplit(settings.uri)
    if not parts.hostname:
        raise HostError(f"{name}: lab_uri {settings.uri} names no host")
    folder = locations.state() / "libvirt" / name
    known = folder / "known_hosts"
    address = parts.hostname if parts.port in (None, 22) else f"[{parts.hostname}]:{parts.port}"
    # Nothing of the user's own settings and known hosts counts; ssh_config(5).
    options = {
        "UserKnownHostsFile": str(known),
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "HostKeyAlgorithms": "ssh-ed25519",
        "IdentitiesOnly": "yes",
        "BatchMode": "yes",
        "ConnectTimeout": str(_CONNECT_S),
    }
    words = [program, "-F", "none", *(word for key, value in options.items() for word in ("-o", f"{key}={value}"))]
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write(known, f"{address} {settings.host_key}\n")
        # libvirt gives its own known hosts to the SSH that is built into it alone (libvirt.org/uri.html);
        # of OpenSSH it takes the name of a program.
        # More than a kilobyte of complaints libvirt tells as "Value too large", so it gets the end of them.
        line = f'{{ {shlex.join(words)} "$@" 2>&1 >&3 | tail -c 600 >&2; }} 3>&1'
        _write(folder / "ssh", f"#!/bin/sh\n{line}\n", mode=0o700)
    except OSError as reason:
        raise process.disk_full_or(reason, f"writing {known}") from reason
    told = {"command": str(folder / "ssh"), "keyfile": settings.private_key, "no_tty": "1"}
    return f"{settings.uri}?" + "&".join(f"{key}={quote(value, safe='/')}" for key, value in told.items())


def _write(path: Path, content: str, *, mode: int = 0o600) -> None:
    """Whole or not at all: another process may use what is there."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(content)
    draft.chmod(mode)
    draft.replace(path)
