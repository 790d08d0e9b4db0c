"""The way to a libvirt on another machine: OpenSSH, one key, and a host key that was known before."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from lab import locations, process
from lab.errors import HostError

if TYPE_CHECKING:
    from lab.hypervisors.libvirt import Settings


def uri(name: str, settings: Settings) -> str:
    """The URI with all that libvirt has to know. Raises `HostError`, `MissingTool`."""
    process.find("ssh", package="openssh-client")
    parts = urlsplit(settings.uri)
    if not parts.hostname:
        raise HostError(f"{name}: lab_uri {settings.uri} names no host")
    folder = locations.state() / "libvirt" / name
    known = folder / "known_hosts"
    address = parts.hostname if parts.port in (None, 22) else f"[{parts.hostname}]:{parts.port}"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = known.with_name(".known_hosts.draft")
        draft.write_text(f"{address} {settings.host_key}\n")
        draft.replace(known)
    except OSError as reason:
        raise process.disk_full_or(reason, f"writing {known}") from reason
    # libvirt.org/uri.html: verify "normal" is StrictHostKeyChecking=yes with these known hosts; nothing is asked for.
    options = {
        "keyfile": settings.private_key,
        "known_hosts": str(known),
        "known_hosts_verify": "normal",
        "no_tty": "1",
        "sshauth": "privkey",
    }
    return f"{settings.uri}?" + "&".join(f"{key}={quote(value, safe='/')}" for key, value in options.items())
