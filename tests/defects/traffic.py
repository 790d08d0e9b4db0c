"""Disturbed traffic: this machine's own `tc` with its libraries, taken into a guest that has none."""

from __future__ import annotations

import io
import re
import tarfile
from typing import TYPE_CHECKING

from lab import process

if TYPE_CHECKING:
    from lab.guests.guest import Guest

PLACE = "/run/lab-tc"


def disturb(guest: Guest, *commands: str) -> None:
    """Run `tc` commands (words after `tc`) in the guest. Raises `GuestCommandFailed`, `MissingTool`."""
    guest.write("/run/lab-tc.tar", _with_libraries(process.find("tc", package="iproute2")))
    guest.check("sh", "-c", f"mkdir -p {PLACE} && tar -x -C {PLACE} -f /run/lab-tc.tar && rm /run/lab-tc.tar")
    for command in commands:
        guest.check(f"{PLACE}/loader", "--library-path", PLACE, f"{PLACE}/tc", *command.split())


def _with_libraries(program: str) -> bytes:
    told = process.check(["ldd", program], timeout_s=30)
    files = dict(re.findall(r"^\s*(\S+) => (/\S+)", told, re.MULTILINE))
    (loader,) = re.findall(r"^\s*(/\S*ld-linux\S*)", told, re.MULTILINE)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", dereference=True) as archive:
        for name, path in {**files, "loader": loader, "tc": program}.items():
            archive.add(path, name, recursive=False, filter=_plain)
    return packed.getvalue()


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mode = 0o755
    return member
