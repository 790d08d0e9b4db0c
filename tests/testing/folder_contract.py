"""A hypervisor whose guests are folders: the contract suite runs over it, honest or with one lie.

`test_hypervisor.py` runs this file in a pytest of its own: `TestFolders` is honest, each of the other classes tells
the lie that it is named after.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from lab.contracts import (
    Capability,
    Channel,
    CommandResult,
    Endpoint,
    Firmware,
    HostFacts,
    Image,
    Machine,
    MachineSpec,
    MachineState,
    Owner,
    Profile,
    Realness,
)
from lab.errors import GuestUnreachable, HypervisorRefused, ImageError
from lab.testing.hypervisor import HypervisorContract

LIE = ""  # what the class that runs now does wrong
LIES = [
    "no-version",
    "no-sentence",
    "believes-images",
    "any-name",
    "takes-twice",
    "always-has-address",
    "always-has-endpoint",
    "leaves-traces",
    "lists-nothing",
    "wrong-owner",
    "no-script",
    "start-reboots",
    "never-stops",
    "forgets-disk",
    "keeps-memory",
    "restores-nothing",
    "restores-disk-alone",
    "deletes-nothing",
    "never-pauses",
]
_INSIDE = re.compile(r"(?<![\w/])/(var|run|proc|dev|sys)\b")


class FolderMachine:
    def __init__(self, spec: MachineSpec, folder: Path) -> None:
        self.spec, self.folder, self.root = spec, folder, folder / "root"
        self.generation = 0
        self.groups: list[int] = []  # of the commands that ran, for what they left in the background

    @property
    def name(self) -> str:
        return self.spec.name

    def _set(self, state: MachineState) -> None:
        (self.folder / "state").write_text(state)
        self.generation += 1

    def state(self) -> MachineState:
        if not self.folder.exists():
            return MachineState.GONE
        if (self.root / "run/poweroff").exists():
            return MachineState.STOPPED
        return MachineState((self.folder / "state").read_text())

    def start(self) -> None:
        if self.state() is not MachineState.RUNNING or LIE == "start-reboots":
            if LIE != "keeps-memory":
                shutil.rmtree(self.root / "run", ignore_errors=True)
            (self.root / "run/poweroff").unlink(missing_ok=True)
            if LIE == "forgets-disk":
                shutil.rmtree(self.root / "var", ignore_errors=True)
            for name in ("var", "run", "dev", "proc/sys/kernel/random"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            (self.root / "proc/sys/kernel/random/boot_id").write_text(f"{secrets.token_hex(8)}\n")
            (self.root / "proc/cpuinfo").write_text("processor : 0\n" * self.spec.profile.vcpus)
            (self.root / "proc/meminfo").write_text(f"MemTotal: {self.spec.profile.memory_mib * 900} kB\n")
            with (self.root / "dev/console").open("a") as console:
                console.write("booted\n")
            self._set(MachineState.RUNNING)

    def stop(self, *, force: bool = False, timeout_s: float = 60.0) -> None:
        if self.folder.exists() and LIE != "never-stops":
            self._set(MachineState.STOPPED)

    def addresses(self) -> Sequence[str]:
        return ("192.0.2.1",) if self.state() is MachineState.RUNNING or LIE == "always-has-address" else ()

    def endpoint(self, guest_port: int) -> Endpoint:
        if self.state() is not MachineState.RUNNING and LIE != "always-has-endpoint":
            raise HypervisorRefused(f"{self.name} is stopped")
        return Endpoint("192.0.2.1", guest_port)

    def console(self) -> bytes:
        with suppress(FileNotFoundError):
            return (self.root / "dev/console").read_bytes()
        return b""

    def reproduce(self) -> str:
        return "make one yourself" if LIE == "no-script" else f"start {self.spec.image.disk}"

    def destroy(self) -> None:
        if LIE != "leaves-traces":
            self.signal(signal.SIGKILL)
            shutil.rmtree(self.folder, ignore_errors=True)

    def snapshot(self, name: str) -> None:
        if name in self.snapshots():
            raise HypervisorRefused(f"there is a snapshot {name}")
        kept = self.folder / "snapshots" / f"{time.monotonic_ns()}-{name}"
        shutil.copytree(self.root, kept)

    def restore(self, name: str) -> None:
        kept = [path for path in self._kept() if path.name.partition("-")[2] == name]
        if not kept:
            raise HypervisorRefused(f"there is no snapshot {name}")
        if LIE == "restores-nothing":
            return
        memory = (self.root / "proc/sys/kernel/random/boot_id").read_text()
        shutil.rmtree(self.root)
        shutil.copytree(kept[0], self.root)
        if LIE == "restores-disk-alone":
            (self.root / "proc/sys/kernel/random/boot_id").write_text("other" + memory)
        self._set(MachineState.RUNNING)

    def delete_snapshot(self, name: str) -> None:
        for path in self._kept():
            if path.name.partition("-")[2] == name and LIE != "deletes-nothing":
                shutil.rmtree(path)

    def snapshots(self) -> Sequence[str]:
        return [path.name.partition("-")[2] for path in self._kept()]

    def snapshots_hold_memory(self) -> bool:
        return True

    def signal(self, number: int) -> None:
        for group in self.groups:
            with suppress(ProcessLookupError):
                os.killpg(group, number)

    def _kept(self) -> list[Path]:
        folder = self.folder / "snapshots"
        return sorted(folder.iterdir()) if folder.is_dir() else []

    def pause(self) -> None:
        if LIE != "never-pauses":
            self.signal(signal.SIGSTOP)
        self._set(MachineState.PAUSED)
        self.generation -= 1

    def resume(self) -> None:
        self.signal(signal.SIGCONT)
        self._set(MachineState.RUNNING)
        self.generation -= 1


class FolderChannel:
    def __init__(self, machine: FolderMachine) -> None:
        self.machine, self.generation = machine, machine.generation

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = 60.0) -> CommandResult:
        machine = self.machine
        if machine.state() is not MachineState.RUNNING or machine.generation != self.generation:
            raise GuestUnreachable("the folder is closed")
        inside = [_INSIDE.sub(rf"{machine.root}/\1", word) for word in argv]
        inside = [word.replace("poweroff", f"touch {machine.root}/run/poweroff") for word in inside]
        # >> because the console of a folder is a file, which > would empty.
        inside = [word.replace(f">{machine.root}/dev/console", f">>{machine.root}/dev/console") for word in inside]
        pipe = subprocess.PIPE
        with subprocess.Popen(inside, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True) as started:
            out, err = started.communicate(stdin, timeout_s)
        with suppress(ProcessLookupError):
            # Only a group that something stayed in is remembered, so its id cannot become somebody else's.
            os.killpg(started.pid, 0)
            machine.groups.append(started.pid)
        return CommandResult(tuple(argv), started.returncode, out, err, 0.0)

    def close(self) -> None:
        return


class FolderHost:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: dict[str, FolderMachine] = {}

    name = "folders"

    def facts(self) -> HostFacts:
        return HostFacts("Folders", "" if LIE == "no-version" else "1.0", "1", Realness.SIMULATED)

    def limits(self) -> Mapping[Capability, str]:
        return {Capability.NMI: "no"} if LIE == "no-sentence" else {}

    def upload(self, image: Image) -> None:
        if not image.disk.exists() and LIE != "believes-images":
            raise ImageError(f"{image.disk} is not there")

    def create(self, spec: MachineSpec) -> Machine:
        safe = re.fullmatch(r"[a-z0-9][a-z0-9-]*", spec.name) is not None
        if (not safe and LIE != "any-name") or (spec.name in self.made and LIE != "takes-twice"):
            raise HypervisorRefused(f"{spec.name!r} is not a new name")
        machine = FolderMachine(spec, self.folder / secrets.token_hex(4))
        machine.root.mkdir(parents=True)
        machine._set(MachineState.STOPPED)
        self.made[spec.name] = machine
        return machine

    def machines(self) -> Sequence[tuple[Owner, Machine]]:
        self.made = {name: machine for name, machine in self.made.items() if machine.folder.exists()}
        owner = Owner("somebody", "a/b/c", 1, 1)
        return [
            (owner if LIE == "wrong-owner" else machine.spec.owner, machine)
            for machine in self.made.values()
            if LIE != "lists-nothing"
        ]


class TestFolders(HypervisorContract):
    lie = ""

    @pytest.fixture(scope="class")
    @classmethod
    def hypervisor(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FolderHost]:
        global LIE
        LIE = cls.lie
        host = FolderHost(tmp_path_factory.mktemp("folders"))
        yield host
        for machine in host.made.values():
            machine.signal(signal.SIGKILL)

    @pytest.fixture(scope="class")
    @classmethod
    def boot_spec(cls, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], MachineSpec]:
        disk = tmp_path_factory.mktemp("image") / "disk"
        disk.write_bytes(b"disk")
        image = Image("folder", "sha256:0", disk, "raw")
        profile = Profile("p", Firmware.NONE, "none", "folder", "none", 1, 64)
        return lambda name: MachineSpec(name, Owner("run", "a/b/c", 1, 2), image, profile)

    @pytest.fixture(scope="class")
    @classmethod
    def log_in(cls) -> Callable[[FolderMachine], Channel]:
        return FolderChannel  # type: ignore[return-value]


for _lie in LIES:
    globals()[f"Test_{_lie}"] = type(f"Test_{_lie}", (TestFolders,), {"lie": _lie})
