"""Magic SysRq keys: which letters and digits Linux may know (Documentation/admin-guide/sysrq.rst)."""

from __future__ import annotations

import re

from lab.errors import HypervisorRefused

_KEY = re.compile(r"[0-9a-z]")


def checked(key: str) -> str:
    """The key. Raises `HypervisorRefused` for what is none."""
    if not _KEY.fullmatch(key):
        raise HypervisorRefused(
            f"{key[:40]!r} is no magic SysRq key", hint="a lower-case letter or a digit; h shows them"
        )
    return key
