"""QEMU on this machine as a hypervisor: makes machines, finds them again, saves and clones warm ones."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lab import locations, process
from lab.contracts import Capability, HostFacts, Image, Machine, MachineSpec, Owner, Realness
from lab.errors import HypervisorRefused, ImageError, MissingTool
from lab.hypervisors import _qemu_accelerator as accelerator
from lab.hypervisors import _qemu_arguments as arguments
from lab.hypervisors import _qemu_firmware as firmware
from lab.hypervisors import _qemu_power as power
from lab.hypervisors import _qemu_store as store
from lab.hypervisors import _qemu_tpm as tpm
from lab.hypervisors import _qemu_warm as warm
from lab.hypervisors._qemu_machine import QemuMachine

if TYPE_CHECKING:
    from lab.hypervisors.qemu import Settings

OLDEST = (6, 2)  # the first that takes `-device` as JSON
# docs/devel/vhost.rst, hw/virtio/vhost-vsock.c: QEMU has no vsock device of its own, only the host kernel's.
_NO_VSOCK = "QEMU's vsock device is that of the host's kernel (/dev/vhost-vsock), which belongs to root"
_NO_KEYS = "QEMU gives a guest values at its start (fw_cfg) and hears none back"
_NEEDED_BYTES = 64 << 20  # an overlay grows by what the guest writes; less than this is no start

# What a guest sees under software emulation: all that QEMU emulates but what gave wrong data in soak tests of
# QEMU 7.2 (AVX and XSAVE state; docs/decisions) and what it emulates in a way that stops Xen (SMAP).
TCG_CPU = "max,-smap,-xsave,-xsaveopt,-xsavec,-xgetbv1,-xsaves,-avx,-avx2,-fma,-f16c,-vaes,-vpclmulqdq,-rdtscp,-pku"
KVM_CPU = "host"


def version_of(binary: str) -> tuple[str, str]:
    """Version and build. Raises `MissingTool` when it is too old or is not QEMU."""
    said = process.run([binary, "--version"], timeout_s=30)
    found = re.search(r"version (\d+)\.(\d+)(\.\d+)?(?: \(([^)]*)\))?", said.stdout)
    oldest = ".".join(map(str, OLDEST))
    if found is None:
        first = (said.stdout or said.stderr).strip().split("\n")[0][:200]
        raise MissingTool(f"{binary} does not say a version of QEMU: {first!r}", hint="apt-get install qemu-system-x86")
    version = f"{found[1]}.{found[2]}{found[3] or ''}"
    if (int(found[1]), int(found[2])) < OLDEST:
        raise MissingTool(
            f"{binary} is QEMU {version}; the lab needs {oldest} or later",
            hint="apt-get install qemu-system-x86, from backports if the release has an older one",
        )
    return version, found[4] or version


def known_version_of(binary: str) -> tuple[str, str]:
    """The same, asked once for each file that the program is: the answer takes longer than a restored guest's."""
    found = Path(binary).resolve().stat()
    is_now = [binary, found.st_ino, found.st_size, found.st_mtime_ns]
    memory = locations.cache() / "qemu-version.json"
    try:
        was, version, build = json.loads(memory.read_text())
    except (OSError, ValueError, TypeError):
        was, version, build = None, "", ""  # never asked, or damaged: ask
    if was == is_now:
        return str(version), str(build)
    answer = version_of(binary)
    draft = memory.with_name(f".{memory.name}.{os.getpid()}")
    try:
        draft.write_text(json.dumps([is_now, *answer]))
        draft.replace(memory)
    except OSError as reason:
        raise process.disk_full_or(reason, f"writing {memory}") from reason
    return answer


class QemuHost:
    """This machine as a hypervisor."""

    def __init__(self, name: str, settings: Settings, binary: str, version: tuple[str, str]) -> None:
        self._name, self._settings, self._binary = name, settings, binary
        self._version, self._build = version
        self._chosen: accelerator.Choice | None = None

    @property
    def name(self) -> str:
        return self._name

    def facts(self) -> HostFacts:
        chosen = self._choice()
        return HostFacts(
            product="QEMU",
            version=self._version,
            build=self._build,
            realness=Realness.REAL,
            accelerator=chosen.name,
            cpu_model=self._cpu_model(),
            details={"accelerator": chosen.why, "binary": self._binary},
        )

    def limits(self) -> Mapping[Capability, str]:
        lacking = {
            Capability.TPM: tpm.lacks(),
            Capability.SECURE_BOOT: firmware.lacks_for_secure_boot(),
            Capability.VSOCK: _NO_VSOCK,
            Capability.KEY_VALUES: _NO_KEYS,
            Capability.COLD_MIGRATION: "QEMU of the lab has one place for a machine that does not run: this machine",
        }
        return {capability: reason for capability, reason in lacking.items() if reason}

    def upload(self, image: Image) -> None:
        """Nothing moves: the host is this machine. Raises `ImageError` when a file of the image is not there."""
        for path in (image.disk, image.kernel, image.initrd):
            if path is not None and not path.is_file():
                raise ImageError(f"image {image.name}: {path} is not there", hint="build or fetch the image again")

    def create(self, spec: MachineSpec) -> Machine:
        return self._new(spec, power.disk_commands)

    def _new(self, spec: MachineSpec, disks: power.DiskCommands) -> QemuMachine:
        """Claim a directory and fill it; whatever goes wrong, nothing is left of it."""
        reason = arguments.refuses(spec.profile)
        if reason is not None:
            raise HypervisorRefused(reason)
        self.upload(spec.image)
        power.require_parts(spec)
        directory = store.directory_of(self._name, spec.name)
        mark = store.Mark(
            spec, self._binary, self._choice().name, self._cpu_model(), fixed_port=self._settings.ssh_port
        )
        directory.make(mark)
        with contextlib.ExitStack() as undo:
            undo.callback(directory.remove)
            store.require_space(directory.path, _NEEDED_BYTES, f"machine {spec.name}")
            power.make_disks(disks(mark, directory))
            undo.pop_all()
        return QemuMachine(spec, directory)

    def machines(self) -> Sequence[tuple[Owner, Machine]]:
        return [(mark.spec.owner, QemuMachine(mark.spec, directory)) for mark, directory in store.every(self._name)]

    # -----------------------------------------------------------------------------------------------------
    # Warm clones

    def warm_key(self, spec: MachineSpec) -> str:
        parts = {"version": self._build, "accelerator": self._choice().name, "cpu_model": self._cpu_model()}
        return warm.key(spec, parts)

    def has_warm(self, key: str) -> bool:
        return warm.exists(key)

    def save_warm(self, key: str, machine: Machine, identity: bytes) -> None:
        if key != self.warm_key(machine.spec):
            raise HypervisorRefused(f"{machine.name} is not a machine of the warm copy {key[:12]}")
        warm.save(key, store.directory_of(self._name, machine.name), identity)

    def warm_identity(self, key: str) -> bytes:
        return warm.identity(key)

    def clone_warm(self, key: str, spec: MachineSpec) -> Machine:
        if key != self.warm_key(spec):
            raise HypervisorRefused(f"{spec.name} wants other hardware than the warm copy {key[:12]} has")
        if not warm.exists(key):
            raise HypervisorRefused(f"there is no warm copy {key[:12]}, or it is damaged", hint="boot a cold machine")
        machine = self._new(spec, warm.disk_commands(key))
        with contextlib.ExitStack() as undo:
            undo.callback(machine.destroy)
            machine.keep_line(warm.clone(key, machine.directory))
            undo.pop_all()
        return machine

    def forget_warm(self, key: str) -> None:
        warm.forget(key)

    def cached(self) -> Mapping[str, Path]:
        """The warm copies, and what killed saves left, by key."""
        return warm.every()

    def cache_keys(self, spec: MachineSpec) -> Sequence[str]:
        """The key of the warm copy that a machine of that specification starts from."""
        return (self.warm_key(spec),)

    def _choice(self) -> accelerator.Choice:
        # Proving KVM takes seconds once a boot of this machine, so only those pay who make a machine.
        if self._chosen is None:
            self._chosen = accelerator.choose(self._settings.accelerator, self._binary, self._build)
        return self._chosen

    def _cpu_model(self) -> str:
        return self._settings.cpu_model or (KVM_CPU if self._choice().name == "kvm" else TCG_CPU)
