"""A way round a limit of linux.uml up to 6.6: processors whose register state is larger than it knows.

See `_uml_ptrace.c`, which is compiled once and preloaded into linux.uml where it is needed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from lab import locations, process
from lab.errors import MissingTool

_SOURCE = Path(__file__).with_name("_uml_ptrace.c")
_LARGE_STATE = frozenset({"amx_tile", "apx"})
_COMPILERS = ("cc", "gcc", "clang", "tcc")

NOTE = "AMX: the lab's ptrace() completes the register state that linux.uml truncates"
"""What the facts of a host say where the way round is in use."""


def is_too_large(cpuinfo: str) -> bool:
    """Whether linux.uml needs help on the processor that the text of /proc/cpuinfo describes."""
    flags = next((line for line in cpuinfo.splitlines() if line.startswith("flags")), "")
    return not _LARGE_STATE.isdisjoint(flags.split())


def library() -> Path | None:
    """The shared object to preload into linux.uml, `None` where this processor needs none.

    Raises `MissingTool`, `CommandFailed`, `LabDiskFull`.
    """
    if not is_too_large(Path("/proc/cpuinfo").read_text()):
        return None
    digest = hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:16]
    built = locations.cache() / "uml" / f"ptrace-{digest}.so"
    if not built.exists():
        _build(built)
    return built


def _build(built: Path) -> None:
    compiler = next((found for name in _COMPILERS if (found := shutil.which(name))), None)
    if compiler is None:
        raise MissingTool(
            "this processor has AMX, which linux.uml cannot handle without a small library, and there is no C compiler",
            hint="apt-get install tcc",
        )
    built.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=built.parent, prefix=".ptrace-")
    os.close(descriptor)
    new = Path(name)
    try:
        process.check([compiler, "-shared", "-fPIC", "-nostdlib", "-O1", "-o", new, _SOURCE], timeout_s=60)
        new.chmod(0o755)
        new.replace(built)
    finally:
        new.unlink(missing_ok=True)
