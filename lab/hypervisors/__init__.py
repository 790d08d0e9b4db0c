"""Drivers: one module each; its file name is the `lab_driver:` of a host. This file finds and loads them."""

from __future__ import annotations

import difflib
import functools
import importlib
from pathlib import Path
from typing import cast

from lab.contracts import Driver
from lab.errors import ConfigurationError


@functools.cache
def names() -> tuple[str, ...]:
    """Every driver of this package, sorted; a leading underscore marks a driver's private modules."""
    here = Path(__file__).parent
    return tuple(sorted(path.stem for path in here.glob("*.py") if not path.name.startswith("_")))


def load(name: str) -> Driver:
    """The driver of that name. Raises `ConfigurationError`, which lists those that exist."""
    known = names()
    # Only a name from the folder is ever imported, so an inventory cannot name any other module.
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        meant = f'did you mean "{close[0]}"? ' if close else ""
        raise ConfigurationError(f'no driver "{name}" ({meant}known: {", ".join(known)})')
    return cast(Driver, importlib.import_module(f"{__name__}.{name}"))
