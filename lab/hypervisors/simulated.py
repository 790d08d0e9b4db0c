"""A simulated host: machines that are folders, with power states, scripted consoles and no guest inside.

It is a control plane without a hypervisor behind it, so everything about it is labelled `simulated` and it never
answers for a guest: what a check would need one for is `unsupported` here. It is for runs that must cost nothing
(planning a lab of a thousand cells, rehearsing a run) and for faults that have to come when they are called.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from lab.contracts import Capability, HostFacts, Image, Machine, MachineSpec, Owner, Profile, Realness
from lab.errors import HypervisorRefused, ImageError
from lab.hypervisors import _simulated_machine as simulated

REALNESS = Realness.SIMULATED
RUNS_HERE = False
_OFFERED = (Capability.SNAPSHOTS, Capability.PAUSES)
LIMITS: Mapping[Capability, str] = {
    # What nobody inside could notice would be a claim without a witness.
    capability: "a simulated host has no guest that could notice it"
    for capability in Capability
    if capability not in _OFFERED
}


class Settings(BaseModel):
    """Of a host: its `lab_*` variables."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    fault: Literal["none", "refuses", "boot-hang", "panic", "no-network", "no-ssh", "vanishes"] = Field(
        default="none", description="what goes wrong when a machine of this host is made or started"
    )


def refuses(profile: Profile) -> str | None:
    """Nothing: what does not exist can have any hardware."""
    del profile
    return None


@contextmanager
def connect(name: str, settings: Settings) -> Iterator[SimulatedHost]:
    """Always possible."""
    yield SimulatedHost(name, settings)


class SimulatedHost:
    """A host that keeps its word about power and disks, and has no guests."""

    def __init__(self, name: str, settings: Settings) -> None:
        self._name, self._settings = name, settings

    @property
    def name(self) -> str:
        return self._name

    def facts(self) -> HostFacts:
        return HostFacts(
            product="Simulated host",
            version="1",
            build="1",
            realness=REALNESS,
            details={"guests": "none: machines have power states and scripted consoles only"},
        )

    def limits(self) -> Mapping[Capability, str]:
        return LIMITS

    def upload(self, image: Image) -> None:
        """Raises `ImageError` when the image's disk is not there."""
        if not image.disk.is_file():
            raise ImageError(f"image {image.name}: {image.disk} is not there", hint="build or fetch the image again")

    def create(self, spec: MachineSpec) -> Machine:
        """Raises `HypervisorRefused`."""
        if self._settings.fault == "refuses":
            raise HypervisorRefused(f"the simulated host {self._name} refuses to make {spec.name}: its fault is set so")
        return simulated.make(self._name, spec, self._settings.fault)

    def machines(self) -> Sequence[tuple[Owner, Machine]]:
        return [(machine.spec.owner, machine) for machine in simulated.every(self._name)]
