"""Kernel modules of the guest, changed on the way: one that is not the kernel's own, and one that crashes."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.guests.guest import Guest

_MAGIC = b"~Module signature appended~\n"  # include/linux/module_signature.h
_INT3 = 0xCC
_SYMBOLS, _RELOCATIONS = 2, 4  # sh_type SHT_SYMTAB, SHT_RELA (ELF-64 object file format, 2)
# Where the kernel's function tracer puts its call: at most behind an `endbr64`.
_TRACED_BYTES = 9


def load_out_of_tree(guest: Guest) -> None:
    """Load a module that does not say that it comes with the kernel."""
    module = _own_module(guest)
    if b"intree=Y\0" not in module:
        raise ValueError("the module does not say that it is in the tree")
    _load(guest, module.replace(b"intree=Y\0", b"outree=Y\0"))


def load_crashing(guest: Guest) -> None:
    """Load a module whose first instruction is a breakpoint that nobody set: the kernel oopses and goes on."""
    _load(guest, crashing(_own_module(guest)))


def unsigned(module: bytes) -> bytes:
    """The module without its signature, which would not fit any more; an unsigned one is still let in."""
    if not module.endswith(_MAGIC):
        return module
    # struct module_signature: 12 bytes, the last four are the length of the signature before it.
    end = len(module) - len(_MAGIC)
    (length,) = struct.unpack(">I", module[end - 4 : end])
    return module[: end - 12 - length]


def crashing(module: bytes) -> bytes:
    """The module with breakpoints all over its first function."""
    sections = _sections(module)
    section, start, size = _first_function(module, sections)
    inside = range(start + _TRACED_BYTES, start + size)
    kept = {at + byte for at in _relocated(module, sections, section) for byte in range(8)}
    code = bytearray(module)
    offset = sections[section][2]
    for at in inside:
        if at not in kept:
            code[offset + at] = _INT3
    return bytes(code)


def _own_module(guest: Guest) -> bytes:
    path = guest.check("sh", "-c", "find /lib/modules/$(uname -r)/kernel -name 'dummy.ko'")
    return unsigned(guest.read(path))


def _load(guest: Guest, module: bytes) -> None:
    guest.write("/run/rogue.ko", module)
    # One that crashes takes insmod with it.
    guest.run("insmod", "/run/rogue.ko")


Section = tuple[int, int, int, int, int, int]
"""Type, flags, offset, size, info (of relocations: the section they are for), link (of symbols: their names)."""


def _sections(module: bytes) -> list[Section]:
    (table,) = struct.unpack_from("<Q", module, 0x28)
    each, count = struct.unpack_from("<HH", module, 0x3A)
    found = []
    for number in range(count):
        _, kind, flags, _, offset, size, link, info = struct.unpack_from("<IIQQQQII", module, table + number * each)
        found.append((kind, flags, offset, size, info, link))
    return found


def _first_function(module: bytes, sections: list[Section]) -> tuple[int, int, int]:
    """Section, offset in it and length of `init_module`."""
    _, _, start, length, _, link = next(section for section in sections if section[0] == _SYMBOLS)
    names = sections[link][2]
    for at in range(start, start + length, 24):
        name, _, _, section, value, size = struct.unpack_from("<IBBHQQ", module, at)
        if module[names + name :].startswith(b"init_module\0"):
            return section, value, size
    raise ValueError("the module has no init_module")


def _relocated(module: bytes, sections: list[Section], section: int) -> list[int]:
    """Where the loader writes addresses into a section; it refuses a place that is not empty."""
    found = []
    for kind, _, offset, size, info, _ in sections:
        if kind == _RELOCATIONS and info == section:
            found += [struct.unpack_from("<Q", module, at)[0] for at in range(offset, offset + size, 24)]
    return found
