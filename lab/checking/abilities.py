"""What a check asks a machine for beyond the methods that all have."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def who_can(thing: object, protocol: type[T]) -> T:
    """The machine (or hypervisor) as one that has a capability, which the check named in `needs`.

    Raises `TypeError` when it has not: then the check forgot to say so.
    """
    if not isinstance(thing, protocol):
        raise TypeError(f"name {protocol.__name__} in the check's needs")
    return thing
