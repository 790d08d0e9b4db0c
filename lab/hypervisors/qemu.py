"""QEMU on this machine: unprivileged, user-mode networking, software emulation unless KVM is proved to work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from lab.contracts import Profile, Realness
from lab.hypervisors import _qemu_arguments as arguments

if TYPE_CHECKING:  # an inventory that names this driver must not pay for what only a connection needs
    from lab.hypervisors._qemu_host import QemuHost

REALNESS = Realness.REAL
RUNS_HERE = True


class Settings(BaseModel):
    """Of a host: its `lab_*` variables."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    binary: str = Field(default="qemu-system-x86_64", description="program name or absolute path")
    accelerator: Literal["auto", "tcg", "kvm"] = Field(
        default="auto", description="auto takes KVM only where a test program ran under it"
    )
    cpu_model: str = Field(default="", description="QEMU's -cpu; empty: chosen for the accelerator")
    ssh_port: int = Field(
        default=0, ge=0, le=65535, description="fixed port of 127.0.0.1 for the guest's SSH; 0: any free one"
    )


def refuses(profile: Profile) -> str | None:
    """Why no QEMU host of the lab can make that hardware, or `None`."""
    return arguments.refuses(profile)


def prove_accelerator() -> tuple[bool, str]:
    """Whether KVM runs guests on this machine, and one sentence that says how that is known. Raises `MissingTool`."""
    from lab import process
    from lab.hypervisors import _qemu_accelerator as accelerator
    from lab.hypervisors._qemu_host import version_of

    binary = process.find(Settings().binary, package="qemu-system-x86")
    proof = accelerator.kvm_proof(binary, version_of(binary)[1])
    return proof.works, proof.sentence


@contextmanager
def connect(name: str, settings: Settings) -> Iterator[QemuHost]:
    """Find QEMU and check its version. Raises `MissingTool`, `MissingExtra`, `HostError`."""
    from lab import process
    from lab.hypervisors import _qemu_accelerator as accelerator
    from lab.hypervisors._qemu_host import QemuHost, known_version_of

    accelerator.require_client()
    binary = process.find(settings.binary, package="qemu-system-x86")
    process.find("qemu-img", package="qemu-utils")
    yield QemuHost(name, settings, binary, known_version_of(binary))
