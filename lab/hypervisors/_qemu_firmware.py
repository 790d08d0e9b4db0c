"""The firmware of QEMU machines: which build of OVMF a profile needs, and what this machine lacks for it.

Secure boot takes the build that keeps its variables behind system management mode, or the guest itself could
enrol keys; and the variable store that Debian fills with Microsoft's keys, which shim, the boot loader of every
distribution, is signed with (/usr/share/doc/ovmf/README.Debian).
"""

from __future__ import annotations

import shutil
from pathlib import Path

from lab.contracts import Firmware, Profile
from lab.errors import MissingTool

FOLDER = Path("/usr/share/OVMF")
SHIM = Path("/usr/lib/shim/shimx64.efi.signed")
LOADER = Path("/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed")


def code(profile: Profile) -> Path | None:
    """The read-only part, where the profile has UEFI."""
    if profile.firmware is not Firmware.UEFI:
        return None
    return FOLDER / ("OVMF_CODE_4M.secboot.fd" if profile.secure_boot else "OVMF_CODE_4M.fd")


def variables(profile: Profile) -> Path:
    """What a machine's own variable store begins as."""
    return FOLDER / ("OVMF_VARS_4M.ms.fd" if profile.secure_boot else "OVMF_VARS_4M.fd")


def refuses(profile: Profile) -> str | None:
    """Why no QEMU machine of the lab can have that firmware, or `None`."""
    if not profile.secure_boot:
        return None
    if profile.firmware is not Firmware.UEFI:
        return f"secure boot is a matter of UEFI, and the profile's firmware is {profile.firmware}"
    if profile.chipset != "q35":
        # OvmfPkg/README: "-machine q35,smm=on"; the i440fx has no memory that only SMM reaches (TSEG).
        return f"OVMF protects its keys by SMM, which QEMU offers on q35 and not on {profile.chipset}"
    return None


def lacks_for_secure_boot() -> str:
    """What this machine lacks to boot with signatures checked, as a sentence; empty when nothing."""
    needed = {
        FOLDER / "OVMF_CODE_4M.secboot.fd": "ovmf",
        FOLDER / "OVMF_VARS_4M.ms.fd": "ovmf",
        SHIM: "shim-signed",
        LOADER: "grub-efi-amd64-signed",
    }
    missing = {package: str(path) for path, package in needed.items() if not path.is_file()}
    if shutil.which("mformat") is None:
        missing["mtools"] = "mformat"
    if not missing:
        return ""
    return f"{next(iter(missing.values()))} is not on this machine (apt-get install {' '.join(missing)})"


def require(profile: Profile) -> None:
    """Raises `MissingTool` when this machine has no build of the firmware that the profile wants."""
    built = code(profile)
    if built is None:
        return
    if not built.is_file() or not variables(profile).is_file():
        raise MissingTool(f"the UEFI firmware is not in {FOLDER}", hint="apt-get install ovmf")
    lacks = lacks_for_secure_boot() if profile.secure_boot else ""
    if lacks:
        raise MissingTool(f"secure boot cannot be offered: {lacks}")
