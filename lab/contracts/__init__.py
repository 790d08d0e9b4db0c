"""What drivers, channels and executors promise, and the values they exchange. Read this first.

A value is a frozen dataclass, behaviour is a `Protocol`. A driver *has* a capability when the methods are
there; a host may still refuse it in `limits()` with the sentence that the report shows.
"""

from lab.contracts.behaviour import (
    Channel,
    Driver,
    Hypervisor,
    Machine,
)
from lab.contracts.capabilities import (
    CAPABILITY_PROTOCOLS,
    Balloons,
    ClonesWarm,
    CountsResets,
    HotplugsDisks,
    HotplugsNics,
    InjectsNmi,
    Pauses,
    ResizesDisks,
    Snapshots,
    TakesScreenshots,
)
from lab.contracts.values import (
    NAME_PATTERN,
    Capability,
    Cell,
    CommandResult,
    Endpoint,
    Firmware,
    HostFacts,
    Image,
    MachineSpec,
    MachineState,
    Owner,
    Profile,
    Realness,
    SshLogin,
)

__all__ = [
    "CAPABILITY_PROTOCOLS",
    "NAME_PATTERN",
    "Balloons",
    "Capability",
    "Cell",
    "Channel",
    "ClonesWarm",
    "CommandResult",
    "CountsResets",
    "Driver",
    "Endpoint",
    "Firmware",
    "HostFacts",
    "HotplugsDisks",
    "HotplugsNics",
    "Hypervisor",
    "Image",
    "InjectsNmi",
    "Machine",
    "MachineSpec",
    "MachineState",
    "Owner",
    "Pauses",
    "Profile",
    "Realness",
    "ResizesDisks",
    "Snapshots",
    "SshLogin",
    "TakesScreenshots",
]
