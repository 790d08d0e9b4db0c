"""A secret: an inventory holds a reference to it, the value is read when it is needed and never shown.

It lies this low because drivers name it in their `Settings`.
"""

from __future__ import annotations

import importlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic_core import core_schema

from lab.errors import ConfigurationError, MissingExtra

REFERENCE_FORMS = "env:NAME, file:/PATH, keyring:SERVICE/USER, or a value encrypted with ansible-vault"
LARGEST_FILE = 64 << 10

_REFERENCE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*|file:[/~][^\0]*|keyring:[^/\0]+/[^\0]+")


@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """Where a secret is; `reveal()` reads it."""

    # Stands before a value that Ansible has already decrypted; nobody can write it, YAML has no NUL.
    DECRYPTED: ClassVar[str] = "\0"

    _reference: str

    @staticmethod
    def is_reference(text: str) -> bool:
        """Whether a text is written as a reference, as people write them."""
        return _REFERENCE.fullmatch(text) is not None

    @staticmethod
    def parse(reference: str) -> Secret:
        """The secret that a reference names. Raises `ValueError`, whose text does not repeat the reference."""
        if not (reference.startswith(Secret.DECRYPTED) or Secret.is_reference(reference)):
            # What stands there may be the secret itself.
            raise ValueError(f"a secret is written as a reference ({REFERENCE_FORMS}), never in plain")
        return Secret(reference)

    def reveal(self) -> str:
        """Read the secret now. Raises `ConfigurationError`, `MissingExtra`."""
        if self._reference.startswith(Secret.DECRYPTED):
            return self._reference.removeprefix(Secret.DECRYPTED)
        kind, _, place = self._reference.partition(":")
        if kind == "env":
            value = os.environ.get(place, "")
            if not value:
                raise ConfigurationError(f"the environment variable {place} is not set", hint="it holds a secret")
            return value
        if kind == "file":
            return _from_file(Path(place).expanduser())
        return _from_keyring(*place.split("/", 1))

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format("***", spec)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.json_or_python_schema(
            json_schema=core_schema.no_info_after_validator_function(cls.parse, core_schema.str_schema()),
            python_schema=core_schema.is_instance_schema(cls),
            serialization=core_schema.plain_serializer_function_ser_schema(str),
        )


def _from_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            about = os.fstat(file.fileno())
            if stat.S_IMODE(about.st_mode) & 0o077:
                raise ConfigurationError(f"{path} holds a secret and others may read it", hint=f"chmod 600 {path}")
            content = file.read(LARGEST_FILE + 1)
    except OSError as reason:
        raise ConfigurationError(f"the secret in {path} cannot be read: {reason.strerror}") from reason
    if len(content) > LARGEST_FILE:
        raise ConfigurationError(f"{path} is larger than {LARGEST_FILE >> 10} KiB, so it is no secret of ours")
    try:
        return content.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise ConfigurationError(f"the secret in {path} is not text") from None


def _from_keyring(service: str, user: str) -> str:
    try:
        keyring = importlib.import_module("keyring")
    except ModuleNotFoundError as reason:
        raise MissingExtra(f"the secret keyring:{service}/{user}", "keyring") from reason
    value = keyring.get_password(service, user)
    if not isinstance(value, str):
        raise ConfigurationError(f"the keyring has no password of {user} for {service}")
    return value
