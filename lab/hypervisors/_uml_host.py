"""User-Mode Linux on this machine as a hypervisor: makes machines and finds them again."""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from filelock import FileLock

from lab import locations, process
from lab.contracts import Capability, HostFacts, Image, Machine, MachineSpec, Owner, Realness
from lab.errors import HostError, HypervisorRefused, ImageError, MissingTool
from lab.hypervisors import _uml_arguments as arguments
from lab.hypervisors import _uml_cow as cow
from lab.hypervisors import _uml_network as network
from lab.hypervisors import _uml_store as store
from lab.hypervisors import _uml_xstate as xstate
from lab.hypervisors._uml_machine import UmlMachine
from lab.hypervisors._uml_store import Mark
from lab.hypervisors.uml import refuses

LIMITS: Mapping[Capability, str] = {
    Capability.WARM_CLONES: "User-Mode Linux cannot save the memory of a machine",
    Capability.SAVED_STATE: "User-Mode Linux cannot save the memory of a machine",
    Capability.LIVE_MIGRATION: "User-Mode Linux cannot bring the memory of a machine into another process",
    Capability.COLD_MIGRATION: "User-Mode Linux of the lab has one place for its machines: this machine",
    Capability.BALLOON: "User-Mode Linux takes pages from the guest without taking them from its MemTotal",
    Capability.MEMORY_HOTPLUG: "User-Mode Linux takes its memory at the start; its kernel knows no memory modules",
    Capability.CPU_HOTPLUG: "User-Mode Linux has one processor",
    Capability.DISK_RESIZE: "User-Mode Linux does not look at the size of a disk again",
    Capability.NMI: "User-Mode Linux has no interrupt that cannot be masked",
    Capability.SCREENSHOTS: "User-Mode Linux has no display",
    Capability.WATCHDOG: "User-Mode Linux has a watchdog that ends the machine, and none that only counts",
    Capability.TPM: "User-Mode Linux has no bus that a Trusted Platform Module could be at",
    Capability.SECURE_BOOT: "User-Mode Linux has no firmware: the kernel is the program that is started",
    Capability.NETWORK_BOOT: "User-Mode Linux has no firmware: the kernel is the program that is started",
    Capability.GUEST_COMMANDS: "User-Mode Linux has no agent of its own and no channel for one",
    Capability.GUEST_FILES: "User-Mode Linux has no agent of its own and no channel for one",
    Capability.GUEST_ADDRESSES: "User-Mode Linux has no agent of its own and no channel for one",
    Capability.FILESYSTEM_FREEZE: "User-Mode Linux can thaw the guest's file systems, but not freeze them",
    Capability.VSOCK: "User-Mode Linux has no sockets between host and guest",
    Capability.KEY_VALUES: "User-Mode Linux has no store of keys that host and guest share",
    Capability.MEMORY_DUMP: "User-Mode Linux keeps its memory in a deleted file and writes it into no core file",
}
_VERSION = re.compile(r"^(\d+\.\d+[0-9a-z.+-]*)$", re.MULTILINE)


def require_tun(device: Path) -> None:
    """Raises `HostError` when there is no device to make a network with."""
    try:
        with device.open("r+b", buffering=0):
            return
    except OSError as reason:
        raise HostError(
            f"{device} cannot be opened, User-Mode Linux has no network without it: {reason.strerror}",
            hint=network.TUN_REMEDY,
        ) from reason


def try_network() -> str:
    """Make the namespaces and the tap device of a machine in a process of its own, and let them go with it.

    Returns a sentence that says so. Raises `HostError` when this machine does not let us.
    """
    made = process.run(
        [sys.executable, "-c", f"import sys, {network.__name__} as it; sys.exit(it.main())"], timeout_s=30
    )
    if made.status != 0:
        what, _, hint = made.stdout.strip().partition("\n")
        raise HostError(what or f"making a network for User-Mode Linux failed: {made.stderr.strip()[-300:]}", hint=hint)
    return "namespaces and a tap device were made"


def version_of(program: str) -> str:
    """The kernel's version. Raises `MissingTool` when the program is not User-Mode Linux."""
    said = process.run([program, "--version"], timeout_s=30)
    found = _VERSION.search(said.stdout)
    if said.status != 0 or found is None:
        first = (said.stdout or said.stderr).strip().split("\n")[0][:200]
        raise MissingTool(
            f"{program} does not say a version of User-Mode Linux: {first!r}", hint="apt-get install user-mode-linux"
        )
    return found[1]


class UmlHost:
    """This machine as a hypervisor."""

    def __init__(self, name: str, program: str, version: str, preload: Path | None) -> None:
        self._name, self._program, self._version, self._preload = name, program, version, preload

    @property
    def name(self) -> str:
        return self._name

    def facts(self) -> HostFacts:
        details = {
            "binary": self._program,
            "kernel": "linux.uml itself; kernel and initial RAM disk of an image are not used",
            "network": "a tap device in the machine's own user and network namespace",
        }
        if self._preload is not None:
            details["processor"] = xstate.NOTE
        digest = hashlib.sha256(Path(self._program).read_bytes()).hexdigest()[:16]
        return HostFacts(
            product="User-Mode Linux",
            version=self._version,
            build=f"sha256:{digest}",
            realness=Realness.REAL,
            cpu_model="the host's",
            details=details,
        )

    def limits(self) -> Mapping[Capability, str]:
        return LIMITS

    def upload(self, image: Image) -> None:
        """Make the raw disk that a copy-on-write file can stand on, once per digest. Raises `ImageError`."""
        base_of(image)

    def create(self, spec: MachineSpec) -> Machine:
        """Raises `HypervisorRefused`, `LabDiskFull`, `ImageError`."""
        reason = refuses(spec.profile)
        if reason is not None:
            raise HypervisorRefused(reason)
        directory = store.directory_of(self._name, spec.name)
        base = base_of(spec.image)
        directory.make(Mark(spec, self._program, base, self._preload))
        machine = UmlMachine(directory, spec)
        try:
            cow.make(directory.root, base, base_name=f"/{arguments.BASE}")
            if spec.seed is not None:
                shutil.copyfile(spec.seed, directory.seed)
                directory.seed.chmod(0o600)  # it holds the guest's private host key
            if spec.data_disk_mib:
                with directory.data.open("wb") as data:
                    data.truncate(spec.data_disk_mib << 20)
        except OSError as failed:
            machine.destroy()
            raise process.disk_full_or(failed, f"making the disks of {spec.name}") from failed
        except BaseException:
            machine.destroy()
            raise
        return machine

    def cached(self) -> Mapping[str, Path]:
        """The images that were made raw, by their digests."""
        return {path.stem: path for path in (locations.cache() / "uml").glob("*.raw")}

    def cache_keys(self, spec: MachineSpec) -> Sequence[str]:
        """The digest of the image that a machine of that specification stands on."""
        return (spec.image.digest.rpartition(":")[2],)

    def machines(self) -> Sequence[tuple[Owner, Machine]]:
        return [(mark.spec.owner, UmlMachine(directory, mark.spec)) for mark, directory in store.every(self._name)]


def base_of(image: Image) -> Path:
    """The image's disk as a raw file: itself, or a copy in the cache. Raises `ImageError`, `LabDiskFull`."""
    if not image.disk.is_file():
        raise ImageError(f"image {image.name}: {image.disk} is not there", hint="build or fetch the image again")
    if image.disk_format == "raw":
        return image.disk.resolve()
    cache = locations.cache() / "uml"
    cache.mkdir(parents=True, exist_ok=True)
    raw = cache / f"{image.digest.rpartition(':')[2]}.raw"
    with FileLock(f"{raw}.lock"):
        if not raw.exists():
            draft = raw.with_suffix(".draft")
            try:
                tool = process.find("qemu-img", package="qemu-utils")
                words = [tool, "convert", "-f", image.disk_format, "-O", "raw", str(image.disk), str(draft)]
                process.check(words, timeout_s=900)
                draft.replace(raw)
            finally:
                draft.unlink(missing_ok=True)
    return raw
