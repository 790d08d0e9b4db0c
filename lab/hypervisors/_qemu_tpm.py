"""The TPM of a QEMU machine: one swtpm process, whose state is a folder in the machine's directory.

The keeper starts it beside QEMU, on a line that only the two have. Every machine that is made gets a TPM with seeds of
its own; a warm clone, whose memory may hold what the TPM sealed, has its source's. It has no certificate of a maker:
there is none. It measures by SHA-256 alone, as TPMs are delivered: with all four digests that swtpm knows, emulated
firmware takes minutes to measure a kernel.
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path

from lab import process
from lab.contracts import Profile

VERSION = "2.0"
STATE = "tpm"  # folder in the machine's directory
LINE = "tpm"  # the chardev
PACKAGE = "swtpm"
TOOLS = "swtpm-tools"
_MADE_S = 120.0
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
    process.find("swtpm_setup", package=TOOLS)
    return [process.find("swtpm", package=PACKAGE), "socket", "--tpm2", "--tpmstate", f"dir={STATE},mode=0600"]


def prepare(directory: Path, profile: Profile) -> None:
    """Manufacture it, where there is none yet. Raises `MissingTool`, `CommandFailed`, `LabDiskFull`."""
    state = directory / STATE
    if not profile.tpm or state.is_dir():
        return
    draft = directory / f".{STATE}.draft"
    shutil.rmtree(draft, ignore_errors=True)  # of a manufacture that was killed
    try:
        draft.mkdir(mode=0o700)
        process.check(_manufacture(process.find("swtpm_setup", package=TOOLS), draft), timeout_s=_MADE_S)
        for path in draft.iterdir():
            path.chmod(0o600)
        draft.rename(state)
    except OSError as reason:
        raise process.disk_full_or(reason, f"making a TPM in {directory}") from reason


def _manufacture(program: str, state: Path) -> list[str]:
    return [program, "--tpm2", "--tpmstate", str(state), "--pcr-banks", "sha256"]


def lacks() -> str:
    """What this machine lacks for a TPM, as a sentence; empty when nothing."""
    missing = [name for name in ("swtpm", "swtpm_setup") if shutil.which(name) is None]
    return f"{missing[0]} is not on this machine (apt-get install {PACKAGE} {TOOLS})" if missing else ""


def by_hand(profile: Profile) -> list[str]:
    """What a person types before QEMU, in the machine's directory."""
    if not profile.tpm:
        return []
    made = shlex.join(_manufacture("swtpm_setup", Path(STATE)))
    control = f"--ctrl type=unixio,path={LINE}.sock"
    return [
        f"test -d {STATE} || {{ mkdir {STATE} && {made}; }}",
        f"swtpm socket --tpm2 --tpmstate dir={STATE},mode=0600 {control} --terminate --daemon",
    ]


def by_hand_line(profile: Profile) -> list[str]:
    """The option that the keeper otherwise adds."""
    return [f"-chardev socket,id={LINE},path={LINE}.sock"] if profile.tpm else []
