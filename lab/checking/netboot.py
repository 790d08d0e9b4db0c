"""A program that firmware can fetch over the network and start: it writes a text on the first serial line, and stops.

Made here byte by byte, so that nothing need be compiled, fetched or signed. The text is stored with every byte
changed: it can only be seen where a processor ran the program, and not where somebody showed the file.
Specifications: Preboot Execution Environment 2.1 (a program for BIOS starts at 0000:7C00 in real mode); PE Format
(Microsoft); UEFI 2.10, section 2.1 (a program for UEFI is a PE32+ file); 16550 UART (line status, bit 5).
"""

from __future__ import annotations

import struct

from lab.contracts import Firmware

_KEY = 0x5A
_LOAD = 0x7C00
_PAGE, _SECTOR = 0x1000, 0x200


def program(firmware: Firmware, text: str) -> bytes:
    """The program for that firmware. Raises `ValueError` where the firmware cannot start one."""
    hidden = bytes(byte ^ _KEY for byte in f"\r\n{text}\r\n".encode("ascii")) + bytes([_KEY])
    if firmware is Firmware.BIOS:
        return _bios(hidden)
    if firmware is Firmware.UEFI:
        return _uefi(hidden)
    raise ValueError(f"firmware {firmware} starts no programs")


def _bios(hidden: bytes) -> bytes:
    setup = b"\x31\xc0\x8e\xd8\xfc\xbe"  # xor ax, ax; mov ds, ax; cld; mov si, (where the text is)
    code = _writer(wide=False)
    return setup + struct.pack("<H", _LOAD + len(setup) + 2 + len(code)) + code + hidden


def _uefi(hidden: bytes) -> bytes:
    code = _writer(wide=True)
    setup = b"\xfc\x48\x8d\x35" + struct.pack("<i", len(code))  # cld; lea rsi, [rip + (where the text is)]
    body = setup + code + hidden
    raw = body.ljust(-(-len(body) // _SECTOR) * _SECTOR, b"\0")
    dos = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40)
    # x86-64, one section, an optional header of 240 bytes; executable, large addresses.
    coff = b"PE\0\0" + struct.pack("<HHIIIHH", 0x8664, 1, 0, 0, 0, 240, 0x22)
    optional = struct.pack("<HBBIIIII", 0x20B, 0, 0, len(raw), 0, 0, _PAGE, _PAGE)
    optional += struct.pack("<QIIHHHHHHIIII", 0, _PAGE, _SECTOR, 0, 0, 0, 0, 0, 0, 0, 2 * _PAGE, _SECTOR, 0)
    optional += struct.pack("<HHQQQQII", 10, 0, 0, 0, 0, 0, 0, 16) + bytes(16 * 8)  # 10: an EFI application
    section = b".text\0\0\0" + struct.pack("<IIIIIIHHI", len(body), _PAGE, len(raw), _SECTOR, 0, 0, 0, 0, 0x60000020)
    return (dos + coff + optional + section).ljust(_SECTOR, b"\0") + raw


def _writer(*, wide: bool) -> bytes:
    """Writes what SI (RSI) points at until the byte that ends it, then stands still."""

    def load_dx(port: int) -> bytes:
        return b"\xba" + struct.pack("<I" if wide else "<H", port)

    wait = b"\xec\xa8\x20\x74\xfb"  # wait: in al, dx; test al, 0x20; jz wait
    send = b"\x88\xc3" + load_dx(0x3FD) + wait + b"\x88\xd8" + load_dx(0x3F8) + b"\xee"
    fetch = bytes([0xAC, 0x34, _KEY, 0x74, len(send) + 2])  # lodsb; xor al, KEY; jz stop
    back = bytes([0xEB, 256 - (len(fetch) + len(send) + 2)])
    return fetch + send + back + b"\xfa\xf4\xeb\xfc"  # stop: cli; hlt; jmp stop
