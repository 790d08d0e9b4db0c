"""The reference machine with a TPM, a firmware that checks signatures, and a boot from the network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from lab.contracts import CommandResult, Firmware, MachineState
from lab.errors import GuestUnreachable, HypervisorRefused
from tests.testing.reference.debugged import DebuggedMachine
from tests.testing.reference.tpm import SmallTpm

_VARIABLE = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


class CapableMachine(DebuggedMachine):
    """Everything that a machine may be able to do."""

    def boot(self) -> None:
        super().boot()
        tpm = SmallTpm(self.root / "tpm")
        if self.spec.profile.tpm and self.lie != "tpm-told":
            self.file("sys/class/tpm/tpm0/tpm_version_major", "2")
        if self.lie != "tpm-measures-for-ever":
            tpm.reset()
        if self.lie == "tpm-forgets":
            tpm.clear()
        if self.spec.profile.firmware is Firmware.UEFI:
            enforced = self.spec.profile.secure_boot and self.lie != "secure-told"
            path = self.root / _VARIABLE
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"\x06\0\0\0" + bytes([enforced]))
        self.file("proc/cmdline", "quiet")

    def tpm_version(self) -> str:
        return "2.0" if self.spec.profile.tpm else ""

    def tpm(self, command: bytes) -> bytes:
        """What the guest's TPM answers."""
        return SmallTpm(self.root / "tpm").answer(command)

    def restore(self, name: str) -> None:
        kept = (self.root / "tpm").read_bytes() if (self.root / "tpm").exists() else b""
        super().restore(name)
        if self.lie == "tpm-not-restored":
            (self.root / "tpm").write_bytes(kept)

    # -- signatures, network -------------------------------------------------------------------------------

    def secure_boot_enforced(self) -> bool:
        return self.spec.profile.secure_boot

    def boot_unsigned(self) -> None:
        self._must_be_stopped()
        if self.lie == "runs-unsigned":
            self.start()
            self._say("Linux version 6.1.0")
            return
        self._say("BdsDxe: failed to load Boot0001: Access Denied")
        self.become(MachineState.RUNNING)
        self.generation += 1

    def boot_from_network(self, directory: Path, file: str) -> None:
        self._must_be_stopped()
        inside = self.lie != "boots-any-file"
        if inside and not ((directory / file).is_file() and (directory / file).resolve().is_relative_to(directory)):
            raise HypervisorRefused(f"{file!r} is not a file of {directory}")
        self.start()
        if self.lie != "boots-from-disk":
            (self.root / "proc/cmdline").write_text(f"quiet {_marker_in(directory)}\n")
        if self.lie == "boots-from-network-for-ever":
            self.file("var/network", _marker_in(directory))

    def start(self) -> None:
        super().start()
        kept = self.root / "var/network"
        if kept.exists():
            self.file("proc/cmdline", kept.read_text())

    def _must_be_stopped(self) -> None:
        if self.state() is not MachineState.STOPPED:
            raise HypervisorRefused(f"{self.name} is {self.state()}")

    def _say(self, line: str) -> None:
        with (self.root / "dev/console").open("a") as console:
            console.write(f"{line}\n")


def _marker_in(directory: Path) -> str:
    for path in directory.rglob("*"):
        found = re.search(rb"lab\.marker=\w+", path.read_bytes()) if path.is_file() else None
        if found:
            return found[0].decode()
    return ""


class FolderChannel:
    """The way into a folder machine; it breaks when the machine goes elsewhere in time."""

    def __init__(self, machine: CapableMachine) -> None:
        self.machine, self.generation = machine, machine.generation

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = 60.0) -> CommandResult:
        machine = self.machine
        if machine.state() is not MachineState.RUNNING or machine.generation != self.generation:
            raise GuestUnreachable("the folder is closed")
        if "/dev/tpm0" in argv[-1]:
            return CommandResult(tuple(argv), 0, machine.tpm(stdin), b"", 0.0)
        if "/dev/xen/xenbus" in argv[-1]:
            return CommandResult(tuple(argv), 0, machine.xenbus(stdin), b"", 0.0)
        status, out, err = machine.processes.run(argv, stdin, timeout_s)
        return CommandResult(tuple(argv), status, out, err, 0.0)

    def close(self) -> None:
        return
