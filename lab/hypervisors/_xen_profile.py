"""Which virtual hardware Xen machines of the lab can have; asked while planning, so it imports next to nothing."""

from __future__ import annotations

from lab.contracts import Firmware, Profile

CHIPSETS = ("xenpv", "xenpvh", "xenhvm")
_FIRMWARE = {"xenhvm": (Firmware.BIOS.value, Firmware.UEFI.value)}


NO_SECURE_BOOT = "Xen keeps no UEFI variables of a domain (its OVMF forgets them), so no keys can be in its firmware"


def refuses(profile: Profile) -> str | None:
    """Why no Xen host of the lab can make that hardware, or `None`."""
    offered = (
        ("chipset", profile.chipset, CHIPSETS),
        ("firmware", profile.firmware.value, _FIRMWARE.get(profile.chipset, (Firmware.NONE.value,))),
        ("disk", profile.disk, ("xen",)),
        ("nic", profile.nic, ("xen",)),
    )
    for key, value, known in offered:
        if value not in known:
            which = "Xen machines of the lab" if key == "chipset" else f"{profile.chipset} machines of the lab"
            return f"{which} have no {key} {value!r} (they have {', '.join(known)})"
    if profile.secure_boot:
        return NO_SECURE_BOOT
    return "Xen machines of the lab have no TPM" if profile.tpm else None
