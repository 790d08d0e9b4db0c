"""The reference host: makes folder machines, marks them with their owners, saves warm copies of them."""

from __future__ import annotations

import re
import secrets
import shutil
import signal
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from lab.contracts import (
    CAPABILITY_PROTOCOLS,
    Capability,
    HostFacts,
    Image,
    Machine,
    MachineSpec,
    MachineState,
    Owner,
    Realness,
)
from lab.errors import HypervisorRefused, ImageError
from tests.testing.reference.guest import make_tools
from tests.testing.reference.moving import MovingMachine
from tests.testing.reference.trusted import CapableMachine


class FolderHost:
    """Honest but for `lie`."""

    name = "folders"

    def __init__(self, folder: Path, lie: str = "") -> None:
        self.folder, self.lie = folder, lie
        self.made: dict[str, MovingMachine] = {}
        self.tools = make_tools(folder / "tools")
        self.warm = folder / "warm"
        self.warm.mkdir()

    def facts(self) -> HostFacts:
        return HostFacts("Folders", "" if self.lie == "no-version" else "1.0", "1", Realness.SIMULATED)

    def limits(self) -> Mapping[Capability, str]:
        if self.lie == "no-reason":
            return {}
        missing = {
            capability: "no" if self.lie == "no-sentence" else "a folder has nothing like that"
            for capability, protocol in CAPABILITY_PROTOCOLS.items()
            if not _has(CapableMachine, protocol) and not _has(FolderHost, protocol)
        }
        return {**missing, **({Capability.VSOCK: "no"} if self.lie == "no-sentence" else {})}

    def upload(self, image: Image) -> None:
        if not image.disk.exists() and self.lie != "believes-images":
            raise ImageError(f"{image.disk} is not there")

    def create(self, spec: MachineSpec) -> Machine:
        safe = re.fullmatch(r"[a-z0-9][a-z0-9-]*", spec.name) is not None
        if (not safe and self.lie != "any-name") or (spec.name in self._living() and self.lie != "takes-twice"):
            raise HypervisorRefused(f"{spec.name!r} is not a new name")
        kind = MovingMachine if self.lie == "no-reason" else CapableMachine
        machine = kind(spec, self.folder / secrets.token_hex(4), self.tools, self.lie)
        if self.lie == "destroys-others":
            machine.on_destroy = self._destroy_all
        self.made[spec.name] = machine
        return machine

    def machines(self) -> Sequence[tuple[Owner, Machine]]:
        owner = Owner("somebody", "a/b/c", 1, 1)
        return [
            (owner if self.lie == "wrong-owner" else machine.spec.owner, machine)
            for machine in self._living().values()
            if self.lie != "lists-nothing"
        ]

    def close(self) -> None:
        """End what the guests run."""
        for machine in self.made.values():
            machine.processes.signal(signal.SIGCONT)
            machine.processes.signal(signal.SIGKILL)

    # -- warm copies ---------------------------------------------------------------------------------------

    def warm_key(self, spec: MachineSpec) -> str:
        if self.lie == "one-key":
            return "key"
        about = {"image": spec.image.digest, "profile": asdict(spec.profile), "disk": spec.data_disk_mib}
        return secrets.token_hex(4) if not about else str(abs(hash(str(about))))

    def has_warm(self, key: str) -> bool:
        return (self.warm / key).exists()

    def save_warm(self, key: str, machine: Machine, identity: bytes) -> None:
        shutil.copytree(self.made[machine.name].root, self.warm / key / "root", symlinks=True)
        (self.warm / key / "identity").write_bytes(identity)

    def warm_identity(self, key: str) -> bytes:
        if not self.has_warm(key):
            raise HypervisorRefused(f"there is no copy {key}")
        return (self.warm / key / "identity").read_bytes()

    def clone_warm(self, key: str, spec: MachineSpec) -> Machine:
        if not self.has_warm(key) and self.lie != "clones-nothing":
            raise HypervisorRefused(f"there is no copy {key}")
        machine = self.create(spec)
        assert isinstance(machine, MovingMachine)
        if self.lie == "clones-boot" or not self.has_warm(key):
            machine.start()
            return machine
        machine.replace_root(self.warm / key / "root")
        if self.lie == "clones-share":
            source = next(other for other in self.made.values() if other is not machine)
            shutil.rmtree(machine.root / "var/tmp")
            (machine.root / "var/tmp").symlink_to(source.root / "var/tmp")
        machine.become(MachineState.RUNNING)
        machine.generation += 1
        return machine

    def forget_warm(self, key: str) -> None:
        shutil.rmtree(self.warm / key, ignore_errors=True)

    def _living(self) -> dict[str, MovingMachine]:
        return {name: machine for name, machine in self.made.items() if machine.folder.exists()}

    def _destroy_all(self) -> None:
        for machine in self.made.values():
            shutil.rmtree(machine.folder, ignore_errors=True)


def _has(kind: type, protocol: type) -> bool:
    methods = [name for name in vars(protocol) if not name.startswith("_")]
    return bool(methods) and all(hasattr(kind, name) for name in methods)
