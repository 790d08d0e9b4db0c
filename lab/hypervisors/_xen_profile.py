"""Which virtual hardware Xen machines of the lab can have; asked while planning, so it imports next to nothing."""

from __future__ import annotations

from lab.contracts import Firmware, Profile

CHIPSETS = ("xenpv", "xenpvh")


def refuses(profile: Profile) -> str | None:
    """Why no Xen host of the lab can make that hardware, or `None`."""
    offered = (
        ("chipset", profile.chipset, CHIPSETS),
        ("firmware", profile.firmware.value, (Firmware.NONE.value,)),
        ("disk", profile.disk, ("xen",)),
        ("nic", profile.nic, ("xen",)),
    )
    for key, value, known in offered:
        if value not in known:
            return f"Xen machines of the lab have no {key} {value!r} (they have {', '.join(known)})"
    return "Xen machines of the lab have no TPM" if profile.tpm else None
