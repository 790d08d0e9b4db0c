"""The lab's own SSH key: one for each user of this machine, made once, the only key that guests let in."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from lab import locations, process
from lab.errors import ConfigurationError

_NAME = "id_ed25519"


@dataclass(frozen=True)
class ClientKey:
    """Where the private key is, and the public line for `authorized_keys`."""

    private: Path
    public: str


def client_key() -> ClientKey:
    """The key, made when there is none. Safe when two processes make it at once.

    Raises `ConfigurationError` when the file is not a key or others may read it, `LabDiskFull`.
    """
    from filelock import FileLock

    folder = locations.state() / "ssh"
    private = folder / _NAME
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        with FileLock(folder / "lock"):
            if not private.exists():
                _make(private)
    except OSError as reason:
        raise process.disk_full_or(reason, f"writing the lab's SSH key {private}") from reason
    return ClientKey(private, _public_line(private))


def _make(private: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    text = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    part = private.with_name(f"{_NAME}.part")
    part.unlink(missing_ok=True)  # under the lock: what is there was left by a process that died
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as target:
        target.write(text)
        target.flush()
        os.fsync(target.fileno())
    part.replace(private)


def _public_line(private: Path) -> str:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    mode = stat.S_IMODE(private.stat().st_mode)
    if mode & 0o077:
        raise ConfigurationError(f"others may read the lab's SSH key {private}", hint=f"chmod 600 {private}")
    try:
        key = serialization.load_ssh_private_key(private.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as reason:
        raise ConfigurationError(
            f"{private} is not an SSH key that the lab can use", hint="move it away; the lab then makes a new one"
        ) from reason
    line = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return f"{line.decode()} interop-lab"
