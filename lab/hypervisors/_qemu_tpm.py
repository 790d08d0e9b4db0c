"""The TPM of a QEMU machine: one swtpm process, whose state is a folder in the machine's directory.

The keeper starts it beside QEMU, on a line that only the two have. It makes seeds of its own at its first start, so
no two machines that were made have one TPM; a warm clone, whose memory may hold what the TPM sealed, has its
source's. It has no certificate of a maker: there is none.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from lab import process
from lab.contracts import Profile

VERSION = "2.0"
STATE = "tpm"  # folder in the machine's directory
LINE = "tpm"  # the chardev
PACKAGE = "swtpm"
# As the chipsets are of their times: the interface that PCs had, and that of the TPM 2.0 in processors.
_MODELS: Mapping[str, str] = {"pc": "tpm-tis", "q35": "tpm-crb"}


def words(profile: Profile) -> list[str]:
    """QEMU's options for a TPM, but for the line to it."""
    if not profile.tpm:
        return []
    device = {"driver": _MODELS[profile.chipset], "tpmdev": "tpm0", "id": "tpm"}
    return ["-tpmdev", f"emulator,id=tpm0,chardev={LINE}", "-device", json.dumps(device)]


def command(profile: Profile) -> list[str]:
    """The emulator, to be started in the machine's directory; empty when the profile wants none.

    Raises `MissingTool`.
    """
    if not profile.tpm:
        return []
    return [process.find("swtpm", package=PACKAGE), "socket", "--tpm2", "--tpmstate", f"dir={STATE},mode=0600"]


def prepare(directory: Path, profile: Profile) -> None:
    """Make the place of its state, where there is none yet."""
    if profile.tpm:
        (directory / STATE).mkdir(mode=0o700, exist_ok=True)


def lacks() -> str:
    """What this machine lacks for a TPM, as a sentence; empty when nothing."""
    found = shutil.which("swtpm") is not None
    return "" if found else f"swtpm is not on this machine (apt-get install {PACKAGE})"


def by_hand(profile: Profile) -> list[str]:
    """What a person types before QEMU, in the machine's directory."""
    if not profile.tpm:
        return []
    control = f"--ctrl type=unixio,path={LINE}.sock"
    return [f"mkdir -p {STATE}", f"swtpm socket --tpm2 --tpmstate dir={STATE},mode=0600 {control} --terminate --daemon"]


def by_hand_line(profile: Profile) -> list[str]:
    """The option that the keeper otherwise adds."""
    return [f"-chardev socket,id={LINE},path={LINE}.sock"] if profile.tpm else []
