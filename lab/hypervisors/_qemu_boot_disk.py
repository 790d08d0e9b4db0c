"""The disk that a machine with secure boot starts from: shim, GRUB, the image's kernel, in a FAT file system.

QEMU's own way to hand over a kernel goes past the signatures: OVMF falls back to its old loader when the check
fails (OvmfPkg/Library/X86QemuLoadImageLib, CVE-2025-2296). So the kernel comes as on a real machine, from an EFI
system partition: the firmware checks shim, shim checks GRUB and GRUB, through shim, the kernel. Nothing is mounted.
"""

from __future__ import annotations

import struct
from pathlib import Path

from lab.contracts import MachineSpec
from lab.errors import HypervisorRefused, NotSupported
from lab.hypervisors import _qemu_firmware as firmware

_SPARE_MIB = 16
_MAGIC = b"MZ"
_PE_OFFSET, _PE_MAGIC, _OPTIONAL = 0x3C, b"PE\0\0", 24
_CERTIFICATES = 4  # entry of the data directory (PE format, "Optional Header Data Directories")
_64_BIT, _DIRECTORIES_OF_64_BIT = 0x20B, 112


def wanted(spec: MachineSpec) -> bool:
    """Whether the machine boots from such a disk: not one whose own disk has a boot loader."""
    return spec.profile.secure_boot and spec.image.kernel is not None


def can_be_made(spec: MachineSpec) -> bool:
    """Whether the lab holds what it takes: the kernel of the image."""
    return spec.image.kernel is not None


def commands(spec: MachineSpec, arguments: str, target: Path, program: Path) -> list[list[str]]:
    """What makes the disk. The firmware is to start `program`; `arguments` are the kernel's."""
    image = spec.image
    if image.kernel is None:
        return []
    inside = [(program, "EFI/BOOT/BOOTX64.EFI"), (firmware.LOADER, "EFI/BOOT/grubx64.efi")]
    inside += [(image.kernel, "vmlinuz"), *([] if image.initrd is None else [(image.initrd, "initrd")])]
    mib = sum(path.stat().st_size for path, _ in inside if path.is_file()) // (1 << 20) + _SPARE_MIB
    at = ["-i", str(target)]
    made = [["mformat", *at, "-C", "-T", str(mib * 2048), "-v", "LAB-BOOT", "::"]]
    # What mformat leaves there looks like a partition that is larger than the disk, and a kernel complains.
    made.append(["dd", "if=/dev/zero", f"of={target}", "bs=1", "seek=446", "count=64", "conv=notrunc", "status=none"])
    made.append(["mmd", *at, "::EFI", "::EFI/BOOT", "::EFI/debian"])
    made += [["mcopy", *at, str(path), f"::{name}"] for path, name in inside]
    menu = target.with_name("grub.cfg")
    made.append(
        ["sh", "-c", 'printf %s "$1" >"$2"', "sh", _menu(arguments, initrd=image.initrd is not None), str(menu)]
    )
    # The folder that is built into Debian's signed GRUB.
    made.append(["mcopy", *at, str(menu), "::EFI/debian/grub.cfg"])
    return made


def _menu(arguments: str, *, initrd: bool) -> str:
    words = " ".join("'" + word.replace("'", "'\\''") + "'" for word in arguments.split())
    return "\n".join((f"linux /vmlinuz {words}", *(["initrd /initrd"] if initrd else []), "boot", ""))


def require_signed(spec: MachineSpec) -> None:
    """Raises `NotSupported` for a kernel that bears no signature at all: nobody could check it."""
    if wanted(spec) and spec.image.kernel is not None and _signature(spec.image.kernel.read_bytes()) is None:
        raise NotSupported(f"the kernel of image {spec.image.name} is not signed, so it cannot start with secure boot")


def without_signature(program: bytes) -> bytes:
    """A boot program as its maker had it before it was signed. Raises `HypervisorRefused` for what is none."""
    found = _signature(program)
    if found is None:
        raise HypervisorRefused("the boot program has no signature that could be taken off it")
    place, start, size = found
    bare = bytearray(program[:start] + program[start + size :])
    struct.pack_into("<II", bare, place, 0, 0)
    return bytes(bare)


def _signature(program: bytes) -> tuple[int, int, int] | None:
    """Where a PE program says that its signatures are, where they begin, and their bytes; `None` without any."""
    try:
        (header,) = struct.unpack_from("<I", program, _PE_OFFSET)
        (kind,) = struct.unpack_from("<H", program, header + _OPTIONAL)
        place = header + _OPTIONAL + _DIRECTORIES_OF_64_BIT + _CERTIFICATES * 8
        start, size = struct.unpack_from("<II", program, place)
    except struct.error:
        return None
    known = program.startswith(_MAGIC) and program[header : header + 4] == _PE_MAGIC and kind == _64_BIT
    return (place, start, size) if known and size and start + size <= len(program) else None
