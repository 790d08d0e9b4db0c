"""The seed: the small disk from which a new guest takes its hostname, machine-id, SSH host key and our key.

It is a tar archive from the disk's first byte on, so that a guest needs no file system driver and no mount to
read it, and any person can look into it with tar.
"""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

from lab import process
from lab.guests.identity import Identity

FOLDER = "lab-seed"
_UNIT = 1 << 20  # disks of odd sizes are refused by some hypervisors


def files(identity: Identity, authorized_key: str) -> dict[str, bytes]:
    """What a guest is told, by file name; the same set renews a machine that runs."""
    return {
        "hostname": f"{identity.hostname}\n".encode(),
        "machine-id": f"{identity.machine_id}\n".encode(),
        "ssh_host_ed25519_key": _line(identity.host_key_private),
        "ssh_host_ed25519_key.pub": _line(identity.host_key_public),
        "authorized_keys": _line(authorized_key),
    }


def write_seed(identity: Identity, authorized_key: str, path: Path) -> None:
    """Write the disk, readable by this user alone: it holds a private key. Raises `LabDiskFull`."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        folder = tarfile.TarInfo(FOLDER + "/")
        folder.type = tarfile.DIRTYPE
        folder.mode = 0o700
        tar.addfile(folder)
        for name, content in files(identity, authorized_key).items():
            member = tarfile.TarInfo(f"{FOLDER}/{name}")
            member.size = len(content)
            member.mode = 0o600
            tar.addfile(member, io.BytesIO(content))
    content = archive.getvalue()
    padded = content + bytes(-len(content) % _UNIT)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as target:
            target.write(padded)
        part.replace(path)
    except OSError as reason:
        part.unlink(missing_ok=True)
        raise process.disk_full_or(reason, f"writing the seed {path}") from reason


def _line(text: str) -> bytes:
    return text.encode() if text.endswith("\n") else f"{text}\n".encode()
