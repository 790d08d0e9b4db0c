"""A folder from which a machine's firmware can boot an image over the network (PXE): loader, kernel, initial RAM disk.

A BIOS machine's card has iPXE in its ROM, which takes a script; UEFI takes GRUB, behind shim where signatures are
checked (shim asks for `grubx64.efi` beside itself, GRUB for `grub/grub.cfg`: both are built in).
"""

from __future__ import annotations

import shutil
from pathlib import Path

from lab.contracts import Firmware, Image, Profile
from lab.errors import ImageError, MissingTool

_SHIM = Path("/usr/lib/shim/shimx64.efi.signed")
_GRUB = Path("/usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed")


def prepare(image: Image, profile: Profile, folder: Path, *, arguments: str = "") -> str:
    """Fill `folder`; the name of the file to begin with. `arguments` are added to the kernel's.

    The root is found by the label of the lab's own images. Raises `ImageError` for an image without a kernel,
    `MissingTool`.
    """
    if image.kernel is None:
        raise ImageError(f"image {image.name} has no kernel of its own that could be fetched from a network")
    words = " ".join(f"{image.kernel_arguments} root=LABEL=lab-root rw console=tty0 console=ttyS0 {arguments}".split())
    shutil.copyfile(image.kernel, folder / "vmlinuz")
    if image.initrd is not None:
        shutil.copyfile(image.initrd, folder / "initrd")
    if profile.firmware is Firmware.BIOS:
        initrd = ["initrd initrd"] if image.initrd else []
        (folder / "boot.ipxe").write_text("\n".join(("#!ipxe", f"kernel vmlinuz {words}", *initrd, "boot", "")))
        return "boot.ipxe"
    (folder / "grub").mkdir()
    initrd = ["initrd /initrd"] if image.initrd else []
    (folder / "grub" / "grub.cfg").write_text("\n".join((f"linux /vmlinuz {words}", *initrd, "boot", "")))
    _copy(_GRUB, folder / "grubx64.efi", "grub-efi-amd64-signed")
    if not profile.secure_boot:
        return "grubx64.efi"
    _copy(_SHIM, folder / "shimx64.efi", "shim-signed")
    return "shimx64.efi"


def _copy(source: Path, target: Path, package: str) -> None:
    if not source.is_file():
        raise MissingTool(f"{source} is not on this machine", hint=f"apt-get install {package}")
    shutil.copyfile(source, target)
