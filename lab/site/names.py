"""Where each page lies below the site, and what its anchors are called."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import quote

from lab.results.store import Run

_NOT_IN_A_SLUG = re.compile(r"[^a-z0-9]+")


@lru_cache(maxsize=4096)
def slug(name: str) -> str:
    """A name for an anchor: `Guest agent` -> `guest-agent`, `net.pv_nic` -> `net-pv-nic`."""
    return _NOT_IN_A_SLUG.sub("-", name.lower()).strip("-") or "unnamed"


@lru_cache(maxsize=4096)
def feature_path(feature: str) -> str:
    """Where the page of a feature lies."""
    return f"features/{slug(feature)}.html"


def guest_path(guest: str) -> str:
    """Where the page of a guest lies."""
    return f"guests/{quote(guest)}.html"


def run_path(run: Run) -> str:
    """Where the page of a run lies."""
    return f"runs/{run.id}/index.html"


def evidence_path(run: str, cell: str, attempt: int) -> str:
    """Where the evidence page of an attempt lies."""
    return f"runs/{run}/{cell}/attempt-{attempt}.html"


def root_of(path: str) -> str:
    """The way from a page back to the top of the site."""
    return "../" * path.count("/")
