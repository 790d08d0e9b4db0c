"""The server that cells fork from: told here what to have ready, so that a cell costs a fork and little more."""

from __future__ import annotations

import os
from collections.abc import Iterable
from multiprocessing.context import ForkServerContext
from pathlib import Path

SUITES = "INTEROP_LAB_SUITES"
"""The environment variable by which the server learns where the suites are; it is told module names and no more."""

# What cells import when they need it, and nearly every cell does. One that is not installed is left out.
_SDKS = ("paramiko", "qemu.qmp", "cryptography.hazmat.primitives.serialization.ssh", "filelock")


def make_ready(context: ForkServerContext, suites: Path, drivers: Iterable[str]) -> None:
    """Say what the server imports when it starts, which is when the first cell does."""
    os.environ[SUITES] = str(suites.resolve())
    # Each process that multiprocessing starts runs the program's main module anew, which imports lab.cli; Python's own
    # way to have that ready, "__main__" in this list, does nothing before 3.12.8 (CPython's issue 126631).
    own = ["__main__", "lab.cli", "lab.runner.cell", "lab.suite", "lab.checking.fixtures"]
    own += [f"lab.hypervisors.{driver}" for driver in sorted(set(drivers))]
    context.set_forkserver_preload([*own, *_SDKS, "lab.runner.executors.ahead"])
