"""The command line of linux.uml: which hardware a profile and a specification become."""

from __future__ import annotations

import hashlib
import re
import shlex

from lab.contracts import MachineSpec
from lab.hypervisors import _uml_network as network
from lab.hypervisors import _uml_warden as warden
from lab.hypervisors._uml_store import Directory, Mark

BASE = "images/base.raw"  # in the sandbox; must lie in a folder, or linux.uml fails to name it in the COW header
DISK_SLOTS = range(3, 8)  # for disks that come later: linux.uml has ubd0 to ubd7; root, seed, data have theirs
PRELOAD = "images/ptrace.so"

# Words of an image's kernel arguments that linux.uml would take for its own (its `--help`), some of which name
# files of the controller, and those that the driver sets because it knows the devices.
_NOT_FOR_UML = re.compile(
    r"(ubd|udb|vec\d|eth\d+=|con\d*=|ssl\d*=|xterm=|umid=|uml_dir=|hostfs=|iomem=|mem=|mconsole=|initrd=|"
    r"root=|console=|noreboot|debug$|--|aio=|seccomp=|skas|nosysemu|noprocmm|stderr=)"
)


def argv(mark: Mark) -> list[str]:
    """The words with which linux.uml is started in its sandbox."""
    return [warden.NAME, *_words(mark.spec, base=f"/{BASE}")]


def reproduce(mark: Mark, directory: Directory) -> str:
    """A shell script that starts the same machine by hand; its console comes to the terminal."""
    spec = mark.spec
    line = [mark.program, *_words(spec, base=str(mark.base))]
    make_data = [f"truncate -s {spec.data_disk_mib}M data.raw"] if spec.data_disk_mib else []
    seed = [f"# seed.raw is the tar archive of the guest's identity; here: {directory.seed}"] if spec.seed else []
    kernel = [f"# linux.uml is its own kernel: {spec.image.kernel} is not used"] if spec.image.kernel else []
    preload = [f"export LD_PRELOAD={shlex.quote(str(mark.preload))}"] if mark.preload else []
    inside = "; ".join(
        (
            f"ip tuntap add {network.tap(0)} mode tap",
            f"ip address add {network.GATEWAY}/{network.PREFIX} dev {network.tap(0)}",
            f"ip link set {network.tap(0)} up",
            "exec " + shlex.join(line),
        )
    )
    return "\n".join(
        (
            "mkdir -p machine && cd machine",
            *seed,
            *make_data,
            *kernel,
            *preload,
            "# the network is in a namespace of its own; from a second terminal:",
            f"#   nsenter -U -n --preserve-credentials -t $(pgrep -o linux.uml) ssh root@{network.GUEST}",
            f"unshare --map-root-user --net sh -c {shlex.quote(inside)}",
            "",
        )
    )


def _words(spec: MachineSpec, *, base: str) -> list[str]:
    disks = [f"ubd0=root.cow,{base}"]
    if spec.seed is not None:
        disks.append("ubd1r=seed.raw")
    if spec.data_disk_mib:
        # The number of a disk is its letter: without a seed the data disk is still the third.
        disks.append("ubd2=data.raw")
    own = [word for word in spec.image.kernel_arguments.split() if not _NOT_FOR_UML.match(word)]
    return [
        f"mem={spec.profile.memory_mib}M",
        f"umid={warden.UMID}",
        "uml_dir=.",
        *disks,
        "root=/dev/ubda",
        "rw",
        "con=null",
        "con0=fd:0,fd:1",
        "ssl=null",
        # gro=1: the host sends segments of up to 64 KiB into the tap; with buffers of one frame the guest would drop
        # each of them (arch/um/drivers/vector_kern.c, get_req_size) and receive 20 KiB/s.
        f"vec0:transport=tap,ifname={network.tap(0)},mac={mac_of(spec.name)},gro=1",
        f"lab.ip={network.GUEST}/{network.PREFIX},{network.GATEWAY}",
        *own,
    ]


def mac_of(name: str) -> str:
    """A stable, locally administered address for the machine's network card."""
    digest = hashlib.sha256(name.encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (0x02, *digest[:5]))
