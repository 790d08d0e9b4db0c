"""Keys that host and guest share: the folder `data` of a domain in xenstore, where libxl lets the guest write.

The programs of xenstore-utils write a value down as printable ASCII without line breaks, and take it so
(tools/xenstore/xenstore_client.c, sanitise_value and unsanitise_value).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from lab.contracts import KEY_NAME, KEY_VALUE_BYTES
from lab.errors import HypervisorRefused
from lab.hypervisors import _xen_power as power
from lab.hypervisors._xen_link import said
from lab.hypervisors._xen_power import Machine

STORE = "xenstore"
_MOST_NAMES = 1000
_ABSENT = re.compile(r"couldn't read path|could not (list|remove) path")
_ESCAPE = re.compile(rb"\\(x[0-9a-f]{2}|[0-7]{3}|.)", re.DOTALL)
_LETTERS = {b"t": b"\t", b"n": b"\n", b"r": b"\r"}
# What a guest can leave is bounded by xenstored (quota-entry-size), which an administrator can change.
_READ = '# read a key\nxenstore-read "$1" | head -c "$2"'
_LIST = '# list keys\nxenstore-list "$1" | head -c 262144'


def write(machine: Machine, name: str, value: str) -> None:
    """Raises `HypervisorRefused` for what is no name or no text, `HostError`."""
    try:
        data = value.encode()
    except UnicodeEncodeError as reason:
        raise HypervisorRefused(f"the value of {name!r} is no text: {reason}") from reason
    if len(data) > KEY_VALUE_BYTES or b"\0" in data:
        raise HypervisorRefused(f"the value of {name!r} has more than {KEY_VALUE_BYTES} bytes, or a NUL")
    _run(machine, "xenstore-write", name, escaped(data))


def read(machine: Machine, name: str) -> str | None:
    """Raises `HypervisorRefused` when there is more than a value can be, `HostError`."""
    path = _path(machine, name)
    # Each byte may have come to four.
    result = machine.link.sh(_READ, path, str(4 * KEY_VALUE_BYTES + 2))
    if not result.stdout and _ABSENT.search(result.err):
        return None
    if not result.stdout:
        raise power.refused(machine, "xenstore-read", said(result))
    data = unescaped(result.stdout)
    if not result.stdout.endswith(b"\n") or len(data) > KEY_VALUE_BYTES:
        raise HypervisorRefused(f"{machine.name}: {name!r} holds more than {KEY_VALUE_BYTES} bytes")
    return data.decode(errors="replace")


def names(machine: Machine) -> Sequence[str]:
    """Sorted. Raises `HypervisorRefused`, `HostError`."""
    result = machine.link.sh(_LIST, _folder(machine))
    if result.err and not _ABSENT.search(result.err):
        raise power.refused(machine, "xenstore-list", said(result))
    return sorted(name for name in set(result.out.splitlines()) if KEY_NAME.fullmatch(name))[:_MOST_NAMES]


def forget(machine: Machine, name: str) -> None:
    """Safe to call twice. Raises `HypervisorRefused`, `HostError`."""
    _run(machine, "xenstore-rm", name)


def escaped(data: bytes) -> str:
    """As xenstore-write takes it; a dash, too, where it could begin an option."""
    plain = "".join(chr(byte) if 0x20 <= byte <= 0x7E and byte != 0x5C else f"\\x{byte:02x}" for byte in data)
    return f"\\x2d{plain[1:]}" if plain.startswith("-") else plain


def unescaped(written: bytes) -> bytes:
    """What xenstore-read wrote down, without the line break at its end."""

    def byte(found: re.Match[bytes]) -> bytes:
        word = found[1]
        if len(word) == 1:
            return _LETTERS.get(word, word)
        return bytes([int(word[1:], 16) if word.startswith(b"x") else int(word, 8) & 0xFF])

    return _ESCAPE.sub(byte, written.removesuffix(b"\n"))


def _run(machine: Machine, program: str, name: str, *words: str) -> None:
    result = machine.link.run((program, _path(machine, name), *words))
    if result.status != 0 and not _ABSENT.search(result.err):
        raise power.refused(machine, program, said(result))


def _path(machine: Machine, name: str) -> str:
    if not KEY_NAME.fullmatch(name):
        raise HypervisorRefused(
            f"{name[:200]!r} cannot be the name of a key", hint="a letter or digit, then up to 63 of these, _ and -"
        )
    return f"{_folder(machine)}/{name}"


def _folder(machine: Machine) -> str:
    """Of the running domain. Raises `HypervisorRefused`, `MachineVanished`."""
    return f"/local/domain/{power.require_up(machine).domid}/data"
