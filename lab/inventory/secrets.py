"""Which settings of a host are secrets, and that none of them is written in plain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from lab.inventory.validation import mentions_secret
from lab.secrets import Secret

__all__ = ["Secret", "handed_over", "secret_fields"]


def secret_fields(settings: type[BaseModel]) -> frozenset[str]:
    """The fields of a driver's settings that hold a `Secret`."""
    return frozenset(name for name, info in settings.model_fields.items() if mentions_secret(info.annotation))


def handed_over(values: Mapping[str, Any], decrypted: frozenset[str]) -> dict[str, Any]:
    """Values for the model, where a text that Ansible decrypted is marked as the secret itself.

    A reference stays one, also when it comes out of a vault or a template.
    """
    return {name: _marked(value) if name in decrypted else value for name, value in values.items()}


def _marked(value: Any) -> Any:
    if not isinstance(value, str) or Secret.is_reference(value):
        return value
    return Secret.DECRYPTED + value
