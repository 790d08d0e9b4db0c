"""Where the lab keeps things on this machine: cache (can be made again), state (what runs now), keys."""

from __future__ import annotations

import os
from pathlib import Path

_NAME = "interop-lab"


def _base(variable: str, fallback: str) -> Path:
    value = os.environ.get(variable, "")
    # XDG Base Directory Specification 0.8: a relative path in these variables is to be ignored.
    return Path(value) if value.startswith("/") else Path.home() / fallback


def cache() -> Path:
    """Images, warm machines, proofs; deleting it costs time only."""
    return _private(_base("XDG_CACHE_HOME", ".cache") / _NAME)


def state() -> Path:
    """Machines that run now, locks, the lab's SSH key."""
    return _private(_base("XDG_STATE_HOME", ".local/state") / _NAME)


def _private(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path
