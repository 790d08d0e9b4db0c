"""An identity: what makes one guest different from the next clone of the same image."""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import asdict, dataclass, field

from lab.contracts import NAME_PATTERN
from lab.errors import ConfigurationError

_MACHINE_ID = re.compile(r"[0-9a-f]{32}")
_PUBLIC = re.compile(r"ssh-ed25519 [A-Za-z0-9+/]{40,200}={0,2}")
_LARGEST_BYTES = 1 << 16


@dataclass(frozen=True)
class Identity:
    """Host name, machine id and SSH host key that the lab gives to a guest, so that it knows whom it talks to."""

    hostname: str
    machine_id: str  # 32 hexadecimal digits, machine-id(5)
    host_key_private: str = field(repr=False)  # OpenSSH's own format, with its last newline
    host_key_public: str  # "ssh-ed25519 AAAA...", without a comment

    @staticmethod
    def make(hostname: str) -> Identity:
        """A fresh identity; the host key is ed25519. Raises `ConfigurationError` for a name that is none."""
        # Here, because importing cryptography costs more than `lab plan` may spend.
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

        _check_hostname(hostname)
        key = Ed25519PrivateKey.generate()
        private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        # A random UUID of version 4 is what machine-id(5) asks for.
        return Identity(hostname, uuid.uuid4().hex, private.decode("ascii"), public.decode("ascii"))

    def to_bytes(self) -> bytes:
        """JSON that holds the private key: keep it where only the lab reads it."""
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def from_bytes(data: bytes) -> Identity:
        """The identity of `to_bytes`. Raises `ConfigurationError`, which never quotes the data."""
        try:
            fields = json.loads(data) if len(data) <= _LARGEST_BYTES else None
        except (ValueError, RecursionError):
            fields = None
        if not isinstance(fields, dict) or set(fields) != set(Identity.__dataclass_fields__):
            raise ConfigurationError("a saved identity is damaged", hint="delete the warm copy that it belongs to")
        identity = Identity(**fields)
        identity._check()
        return identity

    def _check(self) -> None:
        values = (self.hostname, self.machine_id, self.host_key_private, self.host_key_public)
        if not all(isinstance(value, str) for value in values):
            raise ConfigurationError("a saved identity holds something that is not text")
        _check_hostname(self.hostname)
        if not _MACHINE_ID.fullmatch(self.machine_id):
            raise ConfigurationError("a saved identity holds a machine id that is not 32 hexadecimal digits")
        if not _PUBLIC.fullmatch(self.host_key_public):
            raise ConfigurationError("a saved identity holds a host key that is not ed25519")
        if not self.host_key_private.startswith("-----BEGIN OPENSSH PRIVATE KEY-----\n"):
            raise ConfigurationError("a saved identity holds a private key that is not in OpenSSH's format")


def _check_hostname(hostname: str) -> None:
    if not NAME_PATTERN.fullmatch(hostname):
        raise ConfigurationError(
            f"{hostname!r} is not a host name", hint="use small letters, digits, dots and hyphens, at most 64"
        )
