"""All that an author of checks imports.

    from lab.suite import Guest, check

    @check("boot.core", level="smoke")
    def test_kernel_is_not_tainted(guest: Guest) -> None:
        \"\"\"Catches out-of-tree or force-loaded modules and earlier kernel faults.\"\"\"
        assert guest.check("cat", "/proc/sys/kernel/tainted") == "0"

A check is a function `test_*` in `suites/<suite>/<area>/test_*.py` with exactly this decorator. It may ask for the
fixtures `guest`, `machine`, `peer`, `hypervisor`, `reconnect`, `inspect`, `measured` and `evidence`. An assertion that
does not hold is the product's failure; any other exception that the lab does not know is a bug of the check.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NoReturn, TypeVar

from lab import waiting
from lab.checking import devices, key_values, linux, mark, netboot, processors, tpm, wire, witness
from lab.checking.abilities import who_can
from lab.checking.handed import Evidence, Measurements
from lab.checking.outcomes import Blocked, NotApplicable
from lab.contracts import (
    Balloons,
    BootsFromNetwork,
    Capability,
    CommandResult,
    CopiesFiles,
    EmulatesTpm,
    ExchangesKeyValues,
    Firmware,
    FreezesFilesystems,
    HotplugsCpus,
    HotplugsDisks,
    HotplugsMemory,
    HotplugsNics,
    Hypervisor,
    InjectsNmi,
    Machine,
    MachineState,
    MigratesLive,
    Migration,
    OffersVsock,
    Pauses,
    Profile,
    ReportsAddresses,
    ResizesDisks,
    RunsInGuest,
    SavesState,
    SecureBoots,
    SendsSysrq,
    SharesNetworks,
    Snapshots,
    TakesScreenshots,
    TakesSerialInput,
    Watches,
)
from lab.errors import CommandTimedOut, GuestError, GuestUnreachable, HypervisorRefused, NotSupported, WaitedTooLong
from lab.guests.guest import Guest

__all__ = [
    "Balloons",
    "Blocked",
    "BootsFromNetwork",
    "Capability",
    "CommandResult",
    "CommandTimedOut",
    "CopiesFiles",
    "EmulatesTpm",
    "Evidence",
    "ExchangesKeyValues",
    "Firmware",
    "FreezesFilesystems",
    "Guest",
    "GuestError",
    "GuestUnreachable",
    "HotplugsCpus",
    "HotplugsDisks",
    "HotplugsMemory",
    "HotplugsNics",
    "Hypervisor",
    "HypervisorRefused",
    "InjectsNmi",
    "Machine",
    "MachineState",
    "Measurements",
    "MigratesLive",
    "Migration",
    "NotApplicable",
    "NotSupported",
    "OffersVsock",
    "Pauses",
    "Profile",
    "Reconnect",
    "ReportsAddresses",
    "ResizesDisks",
    "RunsInGuest",
    "SavesState",
    "SecureBoots",
    "SendsSysrq",
    "SharesNetworks",
    "Snapshots",
    "TakesScreenshots",
    "TakesSerialInput",
    "WaitedTooLong",
    "Watches",
    "blocked",
    "check",
    "devices",
    "key_values",
    "linux",
    "netboot",
    "not_applicable",
    "processors",
    "tpm",
    "unsupported",
    "waiting",
    "who_can",
    "wire",
    "witness",
]

Reconnect = Callable[[float], None]
"""The fixture `reconnect`: waits until a guest that was off, or was restored, answers again."""

F = TypeVar("F", bound=Callable[..., None])


def check(  # noqa: PLR0913 - the one decorator that authors write; everything but the feature by name
    feature: str,
    *,
    level: str = "conformance",
    cold: bool = False,
    needs: Collection[Capability] = (),
    families: tuple[str, ...] = ("linux",),
    defect: bool = False,
    timeout_s: float = 120.0,
    machines: int = 1,
    spoils: bool = False,
) -> Callable[[F], F]:
    """Mark a test as a check of one feature; every argument must be written out, for the catalogue reads the file.

    `cold`: the machine must have been booted for this cell. `needs`: what the machine must be able to do, else the
    check is not applicable. `defect`: a seeded defect proves that the check can fail. `timeout_s`: of the whole check.
    `machines`: 2 for a check that asks for the fixture `peer`, a second guest of the same cell. `spoils`: the machine
    is of no use for other checks afterwards, and they get another one.
    """
    made = mark.CheckMark(
        feature, level, cold, frozenset(needs), tuple(families), defect, float(timeout_s), machines, spoils
    )
    return lambda function: mark.put(function, made)


def not_applicable(reason: str) -> NoReturn:
    """End the check: this pair cannot have the feature."""
    raise NotApplicable(reason)


def unsupported(reason: str) -> NoReturn:
    """End the check: host or guest says that it cannot do this."""
    raise NotSupported(reason)


def blocked(reason: str) -> NoReturn:
    """End the check: something that it stands on failed."""
    raise Blocked(reason)
